"""The order of an epoch, a permutation of the samples drawn from (seed, epoch) alone, and which samples are held out.

Each sample gets a 64-bit random word; sorting the words orders the samples. Ties (one in 2**64 a pair) keep the
manifest's order, so the permutation depends on no sorting algorithm and no version of NumPy.
"""

import numpy as np
import numpy.typing as npt

from orchestrator.philox import Stream, sample_words

_SAMPLES_AT_ONCE = 1 << 16  # keeps Philox in the processor's cache and its memory small


def epoch_order(*, seed: int, epoch: int, num_samples: int) -> npt.NDArray[np.int64]:
    """The manifest rows in the order in which the epoch visits them: int64[num_samples], each row once.

    seed: the recipe's, in [0, 2**64). epoch: counted from 0.
    """
    return _permutation(seed=seed, stream=Stream.ORDER, epoch=epoch, num_samples=num_samples)


def held_out_rows(*, seed: int, num_samples: int, num_held_out: int) -> npt.NDArray[np.int64]:
    """The manifest rows that are validated on instead of trained on: int64[num_held_out], ascending.

    seed: the recipe's; nothing else enters, so the rows are the same in every epoch and attempt.
    """
    drawn = _permutation(seed=seed, stream=Stream.HOLDOUT, epoch=0, num_samples=num_samples)
    return np.sort(drawn[:num_held_out])


def _permutation(*, seed: int, stream: Stream, epoch: int, num_samples: int) -> npt.NDArray[np.int64]:
    sort_keys = np.empty(num_samples, dtype=np.uint64)
    for start in range(0, num_samples, _SAMPLES_AT_ONCE):
        indices = np.arange(start, min(start + _SAMPLES_AT_ONCE, num_samples), dtype=np.int64)
        words = sample_words(seed=seed, stream=stream, epoch=epoch, indices=indices, num_words=2)
        high, low = words.astype(np.uint64).T
        sort_keys[indices] = (high << np.uint64(32)) | low
    return np.argsort(sort_keys, kind="stable").astype(np.int64, copy=False)
