"""How the fused block's kernels divide their work: constants, chosen by measurement, the same on every run."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """What a program works on at a time, and with what."""

    rows: int
    """Pixels at a time. A power of two, at least 16, as `channels`."""
    channels: int
    """Input channels at a time."""
    num_warps: int
    num_stages: int
    """Loads underway."""
    programs_per_processor: int
    """How many programs share each multiprocessor's part of the rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """The tiles of all operations."""

    forward: Tile
    """Of a convolution."""
    outputs: int
    """Output channels of a program of a convolution, at most."""
    backward: Tile
    """Where a convolution's two gradients are taken at once, its results being few."""
    columns: int
    """Pairs of tap and output channel at most, for gradients at once or the weight's alone."""
    weights: Tile
    """Of the weight's gradient alone."""
    data: Tile
    """Of the inputs' gradient alone."""
    data_columns: int
    """Pairs of tap and output channel at a time, for the inputs' gradient alone."""
    summed: Tile
    """Of operations that sum over rows, without a product."""
    passed: Tile
    """Of operations that neither sum nor multiply."""


NARROW = Tiles(
    forward=Tile(rows=64, channels=64, num_warps=8, num_stages=3, programs_per_processor=2),
    outputs=128,
    backward=Tile(rows=64, channels=64, num_warps=8, num_stages=2, programs_per_processor=2),
    columns=128,
    weights=Tile(rows=64, channels=64, num_warps=8, num_stages=2, programs_per_processor=2),
    data=Tile(rows=64, channels=64, num_warps=8, num_stages=3, programs_per_processor=2),
    data_columns=64,
    summed=Tile(rows=64, channels=64, num_warps=4, num_stages=1, programs_per_processor=2),
    passed=Tile(rows=64, channels=64, num_warps=4, num_stages=1, programs_per_processor=1),
)
"""Of 16-bit values."""
WIDE = Tiles(
    forward=Tile(rows=64, channels=32, num_warps=8, num_stages=3, programs_per_processor=2),
    outputs=128,
    backward=Tile(rows=32, channels=64, num_warps=8, num_stages=2, programs_per_processor=2),
    columns=128,
    weights=Tile(rows=32, channels=64, num_warps=8, num_stages=2, programs_per_processor=2),
    data=Tile(rows=64, channels=64, num_warps=8, num_stages=3, programs_per_processor=2),
    data_columns=32,
    summed=Tile(rows=64, channels=32, num_warps=4, num_stages=1, programs_per_processor=2),
    passed=Tile(rows=64, channels=32, num_warps=4, num_stages=1, programs_per_processor=1),
)
"""Of 32-bit values."""
