"""Philox4x32-10 is the published function, on NumPy and on torch alike, and its streams never meet."""

import numpy as np
import pytest
import torch

from orchestrator.philox import Stream, key_from_seed, philox4x32, sample_uniforms, sample_words

ONES = 0xFFFFFFFF

# Known answers of the authors' implementation (Random123, kat_vectors: philox4x32 10).
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_numpy_gives_the_known_answers(counter, key, answer):
    words = philox4x32(tuple(np.array([word], dtype=np.int64) for word in counter), key)
    assert tuple(int(word[0]) for word in words) == answer


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_torch_gives_the_known_answers(counter, key, answer):
    words = philox4x32(tuple(torch.tensor([word]) for word in counter), key)
    assert tuple(int(word) for word in words) == answer


def test_broadcast_counters_give_what_full_ones_give():
    blocks, samples = np.arange(5), np.array([3, 1 << 31, ONES])
    broadcast = philox4x32((blocks[None, :], 3, samples[:, None], 7), (1, 2))
    zeros = np.zeros((3, 5), dtype=np.int64)
    full = philox4x32((zeros + blocks, zeros + 3, zeros + samples[:, None], zeros + 7), (1, 2))
    np.testing.assert_array_equal(np.stack(broadcast), np.stack(full))


def test_a_sample_s_words_do_not_depend_on_the_batch_or_on_how_many_are_asked_for():
    indices = np.array([5, 1_281_166, 0])
    together = sample_words(seed=1, stream=Stream.CROP, epoch=3, indices=indices, num_words=9)
    alone = sample_words(seed=1, stream=Stream.CROP, epoch=3, indices=indices[1:2], num_words=6)
    np.testing.assert_array_equal(together[1, :6], alone[0])


def test_streams_epochs_seeds_and_samples_do_not_overlap():
    indices = np.arange(50)
    words = [
        sample_words(seed=seed, stream=stream, epoch=epoch, indices=indices, num_words=8)
        for seed in (0, 1, 1 << 32)
        for stream in Stream
        for epoch in (0, 1)
    ]
    drawn = np.concatenate(words).ravel()
    # 9600 words of 32 bits hold about 0.01 coincidences; an overlap of streams would bring hundreds.
    assert drawn.size - np.unique(drawn).size <= 1


def test_a_seed_uses_all_of_its_64_bits():
    keys = {key_from_seed(seed) for seed in (0, 1, 1 << 31, 1 << 32, (1 << 64) - 1)}
    assert len(keys) == 5


def test_uniforms_lie_in_the_half_open_unit_interval_and_fill_it_evenly():
    uniforms = sample_uniforms(seed=9, stream=Stream.MIRROR, epoch=0, indices=np.arange(10_000), num_uniforms=4)
    assert uniforms.min() >= 0
    assert uniforms.max() < 1
    counts, _ = np.histogram(uniforms, bins=10, range=(0, 1))
    assert np.abs(counts - 4000).max() < 300
