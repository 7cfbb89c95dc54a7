"""The fused block's operations as launches of Triton kernels.

How work is divided depends on shapes and the device alone, never on timing, so results are the same bits on every run.
Groups are the last dimension of every launch: several cost as much as one.
"""

from functools import cache, lru_cache

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from orchestrator.kernels.arithmetic import INTERPRETED
from orchestrator.models.block.kernels import Gradient, Grid, Moments, Norm, ParameterGradients, Source
from orchestrator.models.block.layout import as_images, as_rows
from orchestrator.models.block.plain import PlainKernels
from orchestrator.models.block.triton.backward import backward_kernel, settle_kernel
from orchestrator.models.block.triton.elementwise import activate_backward_kernel, activate_kernel, finish_kernel
from orchestrator.models.block.triton.forward import forward_kernel
from orchestrator.models.block.triton.moments import merge_kernel, moments_kernel
from orchestrator.models.block.triton.tiles import NARROW, WIDE, Tile, Tiles

_SMALLEST = 16
"""Of a block's sides in a product of matrices."""
_WIDEST = 256
"""Outputs of a 1x1 convolution at most, for whose gradients a program finds room."""
_MERGED = 4
"""Channels whose parts a program adds up: few, so that many programs share the reading."""


class TritonKernels(PlainKernels):
    """`Kernels` for a GPU, or Triton's interpreter. float64 goes the plain way, and so do very wide layers backwards.

    3x3 convolutions are cuDNN's, on activated maps: read by a kernel of ours tap by tap, maps would pass the cache nine
    times.
    """

    name = "triton"

    def __init__(self, *, tiles: Tiles | None = None) -> None:
        """tiles: None for the ones that fit the maps' dtype."""
        self._tiles = tiles

    def _tiles_for(self, maps: Tensor) -> Tiles:
        return self._tiles or (NARROW if maps.element_size() == 2 else WIDE)

    def moments(self, maps: Tensor, moments: Moments, grid: Grid) -> None:
        """See `Kernels`."""
        if maps.dtype is torch.float64:
            return super().moments(maps, moments, grid)
        self._copy(maps, None, moments, grid)

    def _copy(self, maps: Tensor, copy: Tensor | None, moments: Moments | None, grid: Grid) -> None:
        """Copy maps, if there is somewhere to, and take their moments, if they are wanted."""
        num_channels = maps.shape[1]
        if grid.num_rows == 0 or num_channels == 0:
            return
        tile = self._tiles_for(maps).summed
        block_c = _block(num_channels, tile.channels)
        blocks = triton.cdiv(num_channels, block_c)
        num_parts = _num_parts(grid, tile, blocks, maps.device)
        partial = _partial((grid.num_groups, num_parts, 3, num_channels), maps.device, torch.float64)
        moments_kernel[(blocks, num_parts, grid.num_groups)](
            *_pitched(maps),
            *_pitched(maps if copy is None else copy),
            partial,
            _bounds(grid.row_bounds, maps.device),
            num_channels,
            COPIES=copy is not None,
            HAS_MOMENTS=moments is not None,
            CENTRES=_centres(maps),
            STAGES=tile.num_stages,
            BLOCK_M=tile.rows,
            BLOCK_C=block_c,
            LANES=_lanes(tile, block_c, maps),
            num_warps=tile.num_warps,
        )
        if moments is not None:
            _merge(partial, moments)

    def pointwise(
        self, maps: Tensor, norm: Norm, weight: Tensor, out: Tensor, moments: Moments | None, grid: Grid
    ) -> None:
        """See `Kernels`."""
        if maps.dtype is torch.float64:
            return super().pointwise(maps, norm, weight, out, moments, grid)
        num_outputs, num_inputs = weight.shape
        if grid.num_rows == 0:
            return
        tiles = self._tiles_for(maps)
        tile = tiles.forward
        block_n = _block(num_outputs, tiles.outputs)
        blocks = triton.cdiv(num_outputs, block_n)
        num_parts = _num_parts(grid, tile, blocks, maps.device)
        partial = _partial((grid.num_groups, num_parts, 3, num_outputs), maps.device, torch.float64)
        forward_kernel[(blocks, num_parts, grid.num_groups)](
            *_pitched(maps),
            *_norm_arguments(norm),
            weight.contiguous(),
            *_pitched(out),
            partial,
            _bounds(grid.row_bounds, maps.device),
            num_inputs,
            num_outputs,
            HAS_MOMENTS=moments is not None,
            CENTRES=_centres(maps),
            PRECISION=_precision(),
            STAGES=tile.num_stages,
            BLOCK_M=tile.rows,
            BLOCK_N=block_n,
            BLOCK_K=tile.channels,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
        )
        if moments is not None:
            _merge(partial, moments)

    def convolve(
        self, maps: Tensor, norm: Norm, weight: Tensor, out: Tensor, moments: Moments | None, grid: Grid
    ) -> None:
        """See `Kernels`."""
        if maps.dtype is torch.float64:
            return super().convolve(maps, norm, weight, out, moments, grid)
        activated = torch.empty_like(maps, memory_format=torch.contiguous_format)
        self.activate(maps, norm, activated, grid, pool=False)
        convolved = F.conv2d(as_images(activated, grid), weight, padding=1)
        self._copy(as_rows(convolved), out, moments, grid)

    def activate(self, maps: Tensor, norm: Norm, out: Tensor, grid: Grid, *, pool: bool) -> None:
        """See `Kernels`."""
        if maps.dtype is torch.float64:
            return super().activate(maps, norm, out, grid, pool=pool)
        results = grid.pooled() if pool else grid
        if results.num_rows == 0:
            return
        tile = self._tiles_for(maps).passed
        activate_kernel[_every_tile(results, maps.shape[1], tile)](
            *_pitched(maps),
            *_norm_arguments(norm),
            *_pitched(out),
            _bounds(results.row_bounds, maps.device),
            maps.shape[1],
            grid.height,
            grid.width,
            POOL=pool,
            BLOCK_M=tile.rows,
            BLOCK_C=_block(maps.shape[1], tile.channels),
            num_warps=tile.num_warps,
        )

    def finish(self, gradient: Gradient, source: Source, grid: Grid) -> Tensor:
        """See `Kernels`."""
        grad = gradient.grad
        if grad.dtype is torch.float64:
            return super().finish(gradient, source, grid)
        result = torch.empty_like(grad, memory_format=torch.contiguous_format)
        if grid.num_rows:
            tile = self._tiles_for(grad).passed
            finish_kernel[_every_tile(grid, grad.shape[1], tile)](
                *_pitched(grad),
                *_pitched(gradient.a),
                *_pitched(gradient.b),
                *_pitched(source.maps),
                *_pitched(source.mean),
                result,
                _bounds(grid.row_bounds, grad.device),
                grad.shape[1],
                BLOCK_M=tile.rows,
                BLOCK_C=_block(grad.shape[1], tile.channels),
                num_warps=tile.num_warps,
            )
        return result

    def pointwise_backward(
        self,
        gradient: Gradient,
        source: Source,
        maps: Tensor,
        norm: Norm,
        weight: Tensor,
        into: Gradient,
        grid: Grid,
        *,
        add: bool,
    ) -> ParameterGradients:
        """See `Kernels`."""
        num_outputs, num_inputs = weight.shape
        if maps.dtype is torch.float64 or num_outputs > _WIDEST:
            return super().pointwise_backward(gradient, source, maps, norm, weight, into, grid, add=add)
        tiles = self._tiles_for(maps)
        tile = tiles.backward
        block_n = max(_SMALLEST, triton.next_power_of_2(num_outputs))
        blocks = triton.cdiv(num_inputs, tile.channels)
        num_parts = _num_parts(grid, tile, blocks, maps.device)
        sums = _partial((grid.num_groups, num_parts, 2, num_inputs), maps.device)
        weight_grads = _partial((grid.num_groups, num_parts, *weight.shape), maps.device)
        backward_kernel[(blocks, num_parts, grid.num_groups)](
            self.finish(gradient, source, grid),
            *_pitched(maps),
            *_norm_arguments(norm),
            weight.contiguous(),
            *_pitched(into.grad),
            sums,
            weight_grads,
            _bounds(grid.row_bounds, maps.device),
            num_inputs,
            num_outputs,
            ADD=add,
            PRECISION=_precision(),
            STAGES=tile.num_stages,
            BLOCK_M=tile.rows,
            BLOCK_K=tile.channels,
            BLOCK_N=block_n,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
        )
        return ParameterGradients(*_settle(sums, norm, into, grid, add=add), weight_grads.sum((0, 1)))

    def convolve_backward(
        self,
        gradient: Gradient,
        source: Source,
        maps: Tensor,
        norm: Norm,
        weight: Tensor,
        into: Gradient,
        grid: Grid,
        *,
        add: bool,
    ) -> ParameterGradients:
        """See `Kernels`."""
        if maps.dtype is torch.float64:
            return super().convolve_backward(gradient, source, maps, norm, weight, into, grid, add=add)
        activated = torch.empty_like(maps, memory_format=torch.contiguous_format)
        self.activate(maps, norm, activated, grid, pool=False)
        grad_activated, grad_weight, _ = torch.ops.aten.convolution_backward(
            as_images(self.finish(gradient, source, grid), grid),
            as_images(activated, grid),
            weight,
            None,
            [1, 1],
            [1, 1],
            [1, 1],
            False,
            [0, 0],
            1,
            [True, True, False],
        )
        norm_gradients = self._through_norm(as_rows(grad_activated), maps, norm, into, grid, pool=False, add=add)
        return ParameterGradients(*norm_gradients, grad_weight)

    def activate_backward(
        self, grad: Tensor, maps: Tensor, norm: Norm, into: Gradient, grid: Grid, *, pool: bool
    ) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        if maps.dtype is torch.float64:
            return super().activate_backward(grad, maps, norm, into, grid, pool=pool)
        return self._through_norm(grad, maps, norm, into, grid, pool=pool, add=False)

    def _through_norm(
        self, grad: Tensor, maps: Tensor, norm: Norm, into: Gradient, grid: Grid, *, pool: bool, add: bool
    ) -> tuple[Tensor, Tensor]:
        tile = self._tiles_for(maps).summed
        num_channels = maps.shape[1]
        block_c = _block(num_channels, tile.channels)
        blocks = triton.cdiv(num_channels, block_c)
        num_parts = _num_parts(grid, tile, blocks, maps.device)
        sums = _partial((grid.num_groups, num_parts, 2, num_channels), maps.device)
        activate_backward_kernel[(blocks, num_parts, grid.num_groups)](
            *_pitched(grad),
            *_pitched(maps),
            *_norm_arguments(norm),
            *_pitched(into.grad),
            sums,
            _bounds(grid.row_bounds, maps.device),
            num_channels,
            grid.height,
            grid.width,
            POOL=pool,
            ADD=add,
            STAGES=tile.num_stages,
            BLOCK_M=tile.rows,
            BLOCK_C=block_c,
            LANES=_lanes(tile, block_c, maps),
            num_warps=tile.num_warps,
        )
        return _settle(sums, norm, into, grid, add=add)


def _merge(partial: Tensor, moments: Moments) -> None:
    """partial: [groups, parts, 3, channels]."""
    num_groups, num_parts, _, num_channels = partial.shape
    merge_kernel[(triton.cdiv(num_channels, _MERGED), num_groups)](
        partial,
        *_pitched(moments.mean),
        *_pitched(moments.var),
        num_parts,
        num_channels,
        BLOCK_P=triton.next_power_of_2(num_parts),
        BLOCK_C=_MERGED,
    )


def _settle(sums: Tensor, norm: Norm, into: Gradient, grid: Grid, *, add: bool) -> tuple[Tensor, Tensor]:
    """Add up sums [groups, parts, 2, channels]: into's a and b, and the gradients of norm's weight and bias."""
    num_groups, num_parts, _, num_channels = sums.shape
    weight_grad, bias_grad = torch.empty((2, num_channels), dtype=torch.float32, device=sums.device).unbind()
    settle_kernel[(triton.cdiv(num_channels, _MERGED),)](
        sums,
        *_pitched(norm.moments.var),
        norm.weight,
        norm.eps,
        _counts(grid.num_values, sums.device),
        *_pitched(into.a),
        *_pitched(into.b),
        weight_grad,
        bias_grad,
        num_parts,
        num_groups,
        num_channels,
        OF_BATCH=norm.of_batch,
        ADD=add,
        BLOCK_P=triton.next_power_of_2(num_parts),
        BLOCK_C=_MERGED,
    )
    return weight_grad, bias_grad


def _block(size: int, most: int) -> int:
    """The side of a block for so many values: a power of two."""
    return max(_SMALLEST, min(most, 1 << max(0, size - 1).bit_length()))


def _centres(maps: Tensor) -> bool:
    """Whether moments are counted from a first mean: not of 16-bit values, whose own rounding is more than is lost."""
    return maps.element_size() > 2


def _lanes(tile: Tile, block_c: int, maps: Tensor) -> int:
    """Among how many lanes a column of a block is divided, where each loads 16 bytes of a row at once."""
    lanes_of_row = max(1, block_c * maps.element_size() // 16)
    return max(1, min(tile.rows, tile.num_warps * 32 // lanes_of_row))


def _every_tile(grid: Grid, num_channels: int, tile: Tile) -> tuple[int, int, int]:
    """Programs for all tiles of all groups; the smaller groups' last ones have nothing to do."""
    return (
        triton.cdiv(_most_rows(grid), tile.rows),
        triton.cdiv(num_channels, _block(num_channels, tile.channels)),
        grid.num_groups,
    )


def _most_rows(grid: Grid) -> int:
    return max(grid.group_sizes) * grid.height * grid.width


def _num_parts(grid: Grid, tile: Tile, num_blocks: int, device: torch.device) -> int:
    """Programs among which a group's rows are divided, for each of `num_blocks` blocks of channels."""
    wanted = _num_processors(device) * tile.programs_per_processor // (grid.num_groups * num_blocks)
    return max(1, min(wanted, -(-_most_rows(grid) // tile.rows)))


@cache
def _num_processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 4
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def _partial(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=device)


def _pitched(matrix: Tensor) -> tuple[Tensor, int]:
    """A matrix with columns side by side, and its rows' pitch, as kernels take them."""
    assert matrix.stride(1) == 1 or matrix.shape[1] <= 1, matrix.stride()
    return matrix, matrix.stride(0)


def _norm_arguments(norm: Norm) -> tuple[Tensor | int | float, ...]:
    return (*_pitched(norm.moments.mean), *_pitched(norm.moments.var), norm.weight, norm.bias, norm.eps)


def _precision() -> str:
    """How float32 factors are multiplied: as in cuDNN's convolutions, which is torch's setting."""
    return "tf32" if torch.backends.cudnn.allow_tf32 and not INTERPRETED.value else "ieee"


# Tables on the device, made once: a step that is recorded as a graph must copy nothing from the host.
@lru_cache(maxsize=1024)
def _bounds(row_bounds: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(row_bounds, dtype=torch.int64, device=device)


@lru_cache(maxsize=1024)
def _counts(num_values: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(num_values, dtype=torch.float32, device=device)
