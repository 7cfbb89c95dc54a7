"""Mean and variance of every channel and group: in each program by merging tiles, then over programs.

A tile's values are centred about its own mean while they are in registers; what is left of them corrects that mean.
Means and sums of squares of parts are merged in float64, a number a channel, as Chan, Golub and LeVeque do ("Updating
Formulae and a Pairwise Algorithm …", 1979). Nothing cancels, no sum is long, and the order of every sum is fixed.
"""

import triton
import triton.language as tl


@triton.jit
def merge_tile(values, inside, num_rows, count, mean, squares):
    """Take a tile into (count, mean, squares) of the tiles before it, float64[channels] each.

    values: float32[rows, channels], of which `num_rows` are `inside`. squares: sum of squares about the mean.
    """
    rough = tl.sum(tl.where(inside[:, None], values, 0.0), 0) / num_rows
    centred = tl.where(inside[:, None], values - rough[None, :], 0.0)
    left = tl.sum(centred, 0) / num_rows
    tile_squares = (tl.sum(centred * centred, 0) - num_rows * left * left).to(tl.float64)
    num_rows = num_rows.to(tl.float64)
    total = count + num_rows
    delta = rough.to(tl.float64) + left.to(tl.float64) - mean
    squares += tile_squares + delta * delta * (count * num_rows / total)
    return total, mean + delta * (num_rows / total), squares


@triton.jit
def store_part(partial, count, mean, squares, channels, num_channels):
    """Leave what a program has merged for `merge_kernel`. partial: float64[groups, programs, 3, channels]."""
    at = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * 3 * num_channels + channels
    inside = channels < num_channels
    tl.store(partial + at, count, mask=inside)
    tl.store(partial + at + num_channels, mean, mask=inside)
    tl.store(partial + at + 2 * num_channels, squares, mask=inside)


@triton.jit(do_not_specialize=["num_parts"])
def merge_kernel(
    partial, mean, mean_pitch, var, var_pitch, num_parts, num_channels, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):
    """One program: some channels of one group; writes nothing where the group is empty."""
    group = tl.program_id(1)
    channels = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    parts = tl.arange(0, BLOCK_P)
    inside = (parts < num_parts)[:, None] & (channels < num_channels)[None, :]
    at = partial + (group * num_parts + parts)[:, None] * 3 * num_channels + channels[None, :]
    counts = tl.load(at, mask=inside, other=0.0)
    means = tl.load(at + num_channels, mask=inside, other=0.0)
    squares = tl.load(at + 2 * num_channels, mask=inside, other=0.0)
    total = tl.sum(counts, 0)
    divisor = tl.maximum(total, 1.0)
    merged = tl.sum(means * counts, 0) / divisor
    away = means - merged[None, :]
    merged_squares = tl.sum(squares + away * away * counts, 0)
    written = (channels < num_channels) & (total > 0)
    tl.store(mean + group * mean_pitch + channels, merged.to(tl.float32), mask=written)
    tl.store(var + group * var_pitch + channels, (merged_squares / divisor).to(tl.float32), mask=written)


@triton.jit
def moments_kernel(
    maps,
    maps_pitch,
    copy,
    copy_pitch,
    partial,
    bounds,
    num_channels,
    COPIES: tl.constexpr,
    HAS_MOMENTS: tl.constexpr,
    STAGES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One program: some channels of every so-many-th tile of a group's rows, which it may also copy elsewhere."""
    group = tl.program_id(2)
    channels = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    first = tl.load(bounds + group)
    last = tl.load(bounds + group + 1)
    count = tl.zeros((BLOCK_C,), tl.float64)
    mean = tl.zeros((BLOCK_C,), tl.float64)
    squares = tl.zeros((BLOCK_C,), tl.float64)
    for tile in tl.range(tl.program_id(1), tl.cdiv(last - first, BLOCK_M), tl.num_programs(1), num_stages=STAGES):
        start = first + tile * BLOCK_M
        rows = start + tl.arange(0, BLOCK_M)
        inside = (rows < last)[:, None] & (channels < num_channels)[None, :]
        values = tl.load(maps + rows[:, None] * maps_pitch + channels[None, :], mask=inside, other=0.0)
        if COPIES:
            tl.store(copy + rows[:, None] * copy_pitch + channels[None, :], values, mask=inside)
        if HAS_MOMENTS:
            num_rows = tl.minimum(last - start, BLOCK_M).to(tl.float32)
            count, mean, squares = merge_tile(values.to(tl.float32), rows < last, num_rows, count, mean, squares)
    if HAS_MOMENTS:
        store_part(partial, count, mean, squares, channels, num_channels)
