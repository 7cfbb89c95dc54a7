"""Philox4x32-10: random words as a function of (key, counter), alike for NumPy arrays and torch tensors.

Every random number of a run comes from here, so it depends on what it is for (seed, stream, epoch, sample) and on
nothing else: no generator state, worker count or rank.

Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011. Arithmetic is in int64, whose product
wraps; masking the shifted product gives the exact high word, signed or not.
"""

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

_MASK = 0xFFFFFFFF
_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10


class Stream(IntEnum):
    """What random numbers are for; each purpose has counters of its own. Values are part of a run's numerics."""

    ORDER = 0
    CROP = 1
    MIRROR = 2
    DROPOUT = 3
    COLOR = 4
    HOLDOUT = 5


def philox4x32(counter: tuple[Any, Any, Any, Any], key: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Four random 32-bit words for each counter.

    counter: four int64 arrays (NumPy or torch, broadcastable, values in [0, 2**32)); scalars may stand for constants
        as long as one of the first and one of the last two is an array.
    key: two words in [0, 2**32).
    Returns four int64 arrays with values in [0, 2**32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product_0 = c0 * _MULTIPLIER_0
        product_1 = c2 * _MULTIPLIER_1
        c0, c1, c2, c3 = (
            ((product_1 >> 32) & _MASK) ^ c1 ^ k0,
            product_1 & _MASK,
            ((product_0 >> 32) & _MASK) ^ c3 ^ k1,
            product_0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL_0) & _MASK, (k1 + _WEYL_1) & _MASK
    return c0, c1, c2, c3


def key_from_seed(seed: int) -> tuple[int, int]:
    """The Philox key of a recipe's seed, an integer in [0, 2**64)."""
    return seed & _MASK, (seed >> 32) & _MASK


def sample_words(
    *, seed: int, stream: Stream, epoch: int, indices: npt.NDArray[np.int64], num_words: int
) -> npt.NDArray[np.int64]:
    """Random 32-bit words that belong to samples: int64[len(indices), num_words].

    indices: int64[n], the samples' numbers in the manifest. A word depends on its own sample alone, not on the batch.
    """
    num_blocks = -(-num_words // 4)
    blocks = np.arange(num_blocks, dtype=np.int64)[None, :]
    samples = np.asarray(indices, dtype=np.int64)[:, None]
    zeros = np.zeros((samples.shape[0], num_blocks), dtype=np.int64)
    words = philox4x32((zeros + blocks, zeros + int(stream), zeros + samples, zeros + epoch), key_from_seed(seed))
    return np.stack(words, axis=-1).reshape(samples.shape[0], num_blocks * 4)[:, :num_words]


def sample_uniforms(
    *, seed: int, stream: Stream, epoch: int, indices: npt.NDArray[np.int64], num_uniforms: int
) -> npt.NDArray[np.float64]:
    """Uniform numbers in [0, 1) that belong to samples: float64[len(indices), num_uniforms], multiples of 2**-32."""
    words = sample_words(seed=seed, stream=stream, epoch=epoch, indices=indices, num_words=num_uniforms)
    uniforms: npt.NDArray[np.float64] = words.astype(np.float64) * 2.0**-32
    return uniforms
