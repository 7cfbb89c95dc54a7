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
    """Of a 1x1 convolution."""
    outputs: int
    """Output channels of its programs, at most."""
    backward: Tile
    """Of its two gradients."""
    summed: Tile
    """Of operations that sum over rows, without a product."""
    passed: Tile
    """Of operations that neither sum nor multiply."""


NARROW = Tiles(
    forward=Tile(rows=64, channels=64, num_warps=4, num_stages=4, programs_per_processor=2),
    outputs=128,
    backward=Tile(rows=64, channels=32, num_warps=4, num_stages=4, programs_per_processor=2),
    summed=Tile(rows=64, channels=64, num_warps=4, num_stages=3, programs_per_processor=2),
    passed=Tile(rows=32, channels=128, num_warps=4, num_stages=1, programs_per_processor=1),
)
"""Of 16-bit values."""
WIDE = Tiles(
    forward=Tile(rows=64, channels=32, num_warps=4, num_stages=3, programs_per_processor=2),
    outputs=128,
    backward=Tile(rows=32, channels=64, num_warps=4, num_stages=3, programs_per_processor=2),
    summed=Tile(rows=64, channels=32, num_warps=4, num_stages=3, programs_per_processor=2),
    passed=Tile(rows=32, channels=64, num_warps=4, num_stages=1, programs_per_processor=1),
)
"""Of 32-bit values."""
