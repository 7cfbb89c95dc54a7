"""Mean and variance of every channel and group: in each program over its tiles, then over programs.

Of float32 a program counts from the mean of its first tile, so that little cancels. Each lane adds up the rows that it
holds anyway: nothing passes between lanes until the last tile. Means and sums of squares of programs are merged in
float64, a number a channel, as Chan, Golub and LeVeque do ("Updating Formulae and a Pairwise Algorithm …", 1979). The
order of every sum is fixed.
"""

import triton
import triton.language as tl


@triton.jit
def folded(values, FOLDED: tl.constexpr, INNER: tl.constexpr):
    """float32[rows, channels] summed over rows that are INNER apart, FOLDED at a time.

    Returns [rows / FOLDED / INNER, INNER, channels]. With the numbers of a layout, lanes add only what is theirs.
    """
    OUTER: tl.constexpr = values.shape[0] // (FOLDED * INNER)
    return tl.sum(tl.reshape(values, (OUTER, FOLDED, INNER, values.shape[1])), 1)


@triton.jit
def add_tile(
    values,
    inside,
    num_rows,
    count,
    origin,
    sums,
    squares,
    CENTRES: tl.constexpr,
    FOLDED: tl.constexpr,
    INNER: tl.constexpr,
):
    """Take a tile into (count, origin, sums, squares) of the tiles before it.

    values: float32[rows, channels], of which `num_rows` are `inside`. origin: what is counted from, [channels]: 0, or
    with CENTRES the first tile's mean. sums, squares: folded sums of values - origin and of its squares.
    """
    if CENTRES:
        if count == 0:
            origin = tl.sum(tl.where(inside[:, None], values, 0.0), 0) / num_rows.to(tl.float32)
        values -= origin[None, :]
    away = tl.where(inside[:, None], values, 0.0)
    sums += folded(away, FOLDED, INNER)
    squares += folded(away * away, FOLDED, INNER)
    return count + num_rows, origin, sums, squares


@triton.jit
def store_part(partial, count, origin, sums, squares, channels, num_channels):
    """Leave what a program has added up for `merge_kernel`. partial: float64[groups, programs, 3, channels]."""
    at = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * 3 * num_channels + channels
    inside = channels < num_channels
    total = tl.sum(tl.sum(sums, 0), 0).to(tl.float64)
    total_squares = tl.sum(tl.sum(squares, 0), 0).to(tl.float64)
    divisor = tl.maximum(count, 1).to(tl.float64)
    tl.store(partial + at, tl.zeros_like(total) + count.to(tl.float64), mask=inside)
    tl.store(partial + at + num_channels, origin.to(tl.float64) + total / divisor, mask=inside)
    about_mean = total_squares - total * total / divisor
    about_mean = tl.where(about_mean < 0.0, 0.0, about_mean)  # by rounding, where all values are alike; keeps NaN
    tl.store(partial + at + 2 * num_channels, about_mean, mask=inside)


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
    CENTRES: tl.constexpr,
    STAGES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    LANES: tl.constexpr,
):
    """One program: some channels of every so-many-th tile of a group's rows, which it may also copy elsewhere.

    CENTRES: as in `forward_kernel`. LANES: among how many lanes a column is divided.
    """
    group = tl.program_id(2)
    channels = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    first = tl.load(bounds + group)
    last = tl.load(bounds + group + 1)
    count = last - last  # 0, as whole a number as rows are
    origin = tl.zeros((BLOCK_C,), tl.float32)
    sums = tl.zeros((1, LANES, BLOCK_C), tl.float32)
    squares = tl.zeros((1, LANES, BLOCK_C), tl.float32)
    for tile in tl.range(tl.program_id(1), tl.cdiv(last - first, BLOCK_M), tl.num_programs(1), num_stages=STAGES):
        start = first + tile * BLOCK_M
        rows = start + tl.arange(0, BLOCK_M)
        inside = (rows < last)[:, None] & (channels < num_channels)[None, :]
        values = tl.load(maps + rows[:, None] * maps_pitch + channels[None, :], mask=inside, other=0.0)
        if COPIES:
            tl.store(copy + rows[:, None] * copy_pitch + channels[None, :], values, mask=inside)
        if HAS_MOMENTS:
            num_rows = tl.minimum(last - start, BLOCK_M)
            count, origin, sums, squares = add_tile(
                values.to(tl.float32),
                rows < last,
                num_rows,
                count,
                origin,
                sums,
                squares,
                CENTRES,
                BLOCK_M // LANES,
                LANES,
            )
    if HAS_MOMENTS:
        store_part(partial, count, origin, sums, squares, channels, num_channels)
