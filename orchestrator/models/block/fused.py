"""The dense block in linear memory: one matrix of maps, statistics taken once a channel, gradients corrected once.

Between forward and backward pass it keeps its maps and the bottlenecks' outputs; normalised maps, their ReLU and
concatenations are never stored. docs/performance.md has the algebra and what it saves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from orchestrator.models.block.groups import Grouped, SharedGroup, shared_group_of
from orchestrator.models.block.kernels import Gradient, Grid, Kernels, Moments, Source, statistics_dtype
from orchestrator.models.block.layout import as_images, as_rows, compute_dtype, note_moments
from orchestrator.models.block.reference import BasicLayer, BottleneckLayer, DenseBlock
from orchestrator.models.block.select import kernels_of
from orchestrator.models.block.statistics import NormMoments, NormSettings, uses_batch_moments
from orchestrator.models.dropout import SampleDropout


class FusedDenseBlock(DenseBlock, Grouped):
    """`DenseBlock`, faster and in less memory; the result has channels_last layout."""

    def forward(self, features: Tensor) -> Tensor:
        """features: [n, in_channels, h, w]; [n, in_channels + num_layers * growth_rate, h, w]."""
        shared = shared_group_of(self.layers[0].norm1)
        grid = self.grid(features, shared)
        call = _BlockCall.of(self.layers, features, grid, shared)
        parameters = [parameter for layer in self.layers for parameter in _parameters(layer)]
        result: Tensor = _Block.apply(call, features.to(call.dtype), *parameters)
        self._update_running_statistics(call)
        if call.takes_moments:
            note_moments(result, call.moments)
        return result

    def _update_running_statistics(self, call: "_BlockCall") -> None:
        inputs, bottlenecks = NormMoments(call.moments), NormMoments(call.bottleneck_moments)
        for module, layer in zip(self.layers, call.layers, strict=True):
            inputs.belong(module.norm1, 0, layer.start)
            if isinstance(module, BottleneckLayer):
                bottlenecks.belong(module.norm2, layer.bottleneck_start, layer.bottleneck_end)
        inputs.update_running(call.grid)
        bottlenecks.update_running(call.grid)


def _parameters(layer: BasicLayer | BottleneckLayer) -> Iterator[Tensor]:
    """In the order in which `_Block` takes them."""
    yield from (layer.norm1.weight, layer.norm1.bias, layer.conv1.weight)
    if isinstance(layer, BottleneckLayer):
        yield from (layer.norm2.weight, layer.norm2.bias, layer.conv2.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mask:
    """Dropout of a matrix, drawn."""

    kept: Tensor
    scale: float

    @classmethod
    def draw(cls, dropout: SampleDropout, channels: int, grid: Grid, device: torch.device) -> "_Mask | None":
        if not dropout.drops:
            return None
        shape = torch.Size((grid.num_images, channels, grid.height, grid.width))
        return cls(kept=as_rows(dropout.draw(shape, device)), scale=dropout.scale)

    def apply_(self, matrix: Tensor) -> None:
        matrix.mul_(self.kept).mul_(self.scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class _LayerCall:
    """One layer in one forward pass. It reads columns [0, start) of the maps and writes [start, end)."""

    start: int
    end: int
    norm1: NormSettings
    drop1: _Mask | None
    norm2: NormSettings | None
    """None: a basic layer, which has no bottleneck."""
    drop2: _Mask | None
    bottleneck_start: int
    bottleneck_end: int
    """Columns of all bottlenecks' moments that are this one's."""

    @property
    def num_parameters(self) -> int:
        return 3 if self.norm2 is None else 6


@dataclass(slots=True, kw_only=True)
class _BlockCall:
    """One forward pass: all that isn't differentiated."""

    grid: Grid
    kernels: Kernels
    shared: SharedGroup
    dtype: torch.dtype
    layers: list[_LayerCall]
    moments: Moments
    bottleneck_moments: Moments
    takes_moments: bool
    """Whether a norm in the block normalises by the batch's moments."""
    keep: bool
    """Whether a backward pass may follow."""

    @classmethod
    def of(
        cls, modules: list[BasicLayer | BottleneckLayer], features: Tensor, grid: Grid, shared: SharedGroup
    ) -> "_BlockCall":
        device, dtype = features.device, compute_dtype(features)
        layers = []
        start, bottleneck_start = features.shape[1], 0
        for module in modules:
            layer = _layer_call(module, start, bottleneck_start, grid, device)
            layers.append(layer)
            start, bottleneck_start = layer.end, layer.bottleneck_end
        norms = [norm for module in modules for norm in module.children() if isinstance(norm, nn.BatchNorm2d)]
        return cls(
            grid=grid,
            kernels=kernels_of(device),
            shared=shared,
            dtype=dtype,
            layers=layers,
            moments=Moments.zeros(grid, start, statistics_dtype(dtype), device),
            bottleneck_moments=Moments.zeros(grid, bottleneck_start, statistics_dtype(dtype), device),
            takes_moments=any(uses_batch_moments(norm) for norm in norms),
            keep=torch.is_grad_enabled(),
        )


def _layer_call(
    module: BasicLayer | BottleneckLayer, start: int, bottleneck_start: int, grid: Grid, device: torch.device
) -> _LayerCall:
    norm1 = NormSettings.of(module.norm1, grid)
    if not isinstance(module, BottleneckLayer):
        growth_rate = module.conv1.out_channels
        return _LayerCall(
            start=start,
            end=start + growth_rate,
            norm1=norm1,
            drop1=_Mask.draw(module.drop1, growth_rate, grid, device),
            norm2=None,
            drop2=None,
            bottleneck_start=bottleneck_start,
            bottleneck_end=bottleneck_start,
        )
    growth_rate, width = module.conv2.out_channels, module.conv2.in_channels
    return _LayerCall(
        start=start,
        end=start + growth_rate,
        norm1=norm1,
        drop1=_Mask.draw(module.drop1, width, grid, device),
        norm2=NormSettings.of(module.norm2, grid),
        drop2=_Mask.draw(module.drop2, growth_rate, grid, device),
        bottleneck_start=bottleneck_start,
        bottleneck_end=bottleneck_start + width,
    )


class _Block(torch.autograd.Function):
    """A whole block; its gradients pass from the last layer to the first through one matrix."""

    @staticmethod
    def forward(ctx: Any, call: _BlockCall, features: Tensor, *parameters: Tensor) -> Tensor:
        maps = features.new_empty(call.grid.num_rows, call.layers[-1].end)
        in_channels = features.shape[1]
        maps[:, :in_channels].copy_(as_rows(features))
        if call.takes_moments:
            known = call.moments.columns(0, in_channels)
            call.kernels.moments(maps[:, :in_channels], known, call.grid)
            call.shared.join_moments(known, call.grid)
        kept = []
        cast = _cast(parameters, [maps.dtype if parameter.dim() == 4 else parameter.dtype for parameter in parameters])
        remaining = iter(cast)
        with torch.autocast(features.device.type, enabled=False):
            for layer in call.layers:
                own = [next(remaining) for _ in range(layer.num_parameters)]
                kept += _run_layer(call, layer, maps, own)
        output = as_images(maps, call.grid)
        if call.keep:
            ctx.call = call
            ctx.save_for_backward(output, *kept, *cast)
            ctx.num_kept = len(kept)
            ctx.dtypes = [parameter.dtype for parameter in parameters]
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        call: _BlockCall = ctx.call
        output, *others = ctx.saved_tensors
        maps = as_rows(output)
        kept, parameters = others[: ctx.num_kept], others[ctx.num_kept :]
        gradient = Gradient(
            torch.empty_like(maps).copy_(as_rows(grad_output)),
            torch.zeros_like(call.moments.mean),
            torch.zeros_like(call.moments.mean),
        )
        parameter_gradients: list[Tensor] = []
        for layer in reversed(call.layers):
            bottleneck = kept.pop() if layer.norm2 is not None else None
            own = parameters[-layer.num_parameters :]
            del parameters[-layer.num_parameters :]
            parameter_gradients[:0] = _run_layer_backward(call, layer, maps, bottleneck, own, gradient)
        grad_features = None
        if ctx.needs_input_grad[1]:
            grad_features = as_images(_finished(call, maps, gradient, 0, call.layers[0].start), call.grid)
        return None, grad_features, *_cast(parameter_gradients, ctx.dtypes)


def _cast(tensors: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> list[Tensor]:
    """Tensors in those precisions; all that must be copied is copied at once."""
    cast = [
        tensor if tensor.dtype is dtype else torch.empty_like(tensor, dtype=dtype)
        for tensor, dtype in zip(tensors, dtypes, strict=True)
    ]
    pairs = [(copy, tensor) for copy, tensor in zip(cast, tensors, strict=True) if copy is not tensor]
    if pairs:
        torch._foreach_copy_([copy for copy, _ in pairs], [tensor for _, tensor in pairs])
    return cast


def _run_layer(call: _BlockCall, layer: _LayerCall, maps: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """Write the layer's maps and their moments; its bottleneck's output, if a backward pass needs it.

    parameters: weights of convolutions in the maps' precision.
    """
    kernels, grid = call.kernels, call.grid
    inputs, added = maps[:, : layer.start], maps[:, layer.start : layer.end]
    norm1 = layer.norm1.norm(call.moments.columns(0, layer.start), *parameters[:2])
    weight1 = parameters[2]
    added_moments = call.moments.columns(layer.start, layer.end) if call.takes_moments else None
    if layer.norm2 is None:
        early = None if layer.drop1 else added_moments
        kernels.convolve(inputs, norm1, weight1, added, early, grid)
        _after_convolution(call, added, layer.drop1, added_moments)
        return []
    bottleneck = maps.new_empty(len(maps), weight1.shape[0])
    columns = call.bottleneck_moments.columns(layer.bottleneck_start, layer.bottleneck_end)
    moments = columns if layer.norm2.running is None else None
    kernels.pointwise(inputs, norm1, weight1.flatten(1), bottleneck, None if layer.drop1 else moments, grid)
    _after_convolution(call, bottleneck, layer.drop1, moments)
    norm2 = layer.norm2.norm(columns, *parameters[3:5])
    early = None if layer.drop2 else added_moments
    kernels.convolve(bottleneck, norm2, parameters[5], added, early, grid)
    _after_convolution(call, added, layer.drop2, added_moments)
    return [bottleneck] if call.keep else []


def _after_convolution(call: _BlockCall, maps: Tensor, mask: _Mask | None, moments: Moments | None) -> None:
    """Dropout, and moments where the convolution couldn't take them, since dropout came in between."""
    if mask is not None:
        mask.apply_(maps)
        if moments is not None:
            call.kernels.moments(maps, moments, call.grid)
    if moments is not None:
        call.shared.join_moments(moments, call.grid)


def _run_layer_backward(
    call: _BlockCall,
    layer: _LayerCall,
    maps: Tensor,
    bottleneck: Tensor | None,
    parameters: list[Tensor],
    gradient: Gradient,
) -> list[Tensor]:
    """Add to the gradient of what the layer read; the gradients of its parameters, in their order."""
    kernels, grid = call.kernels, call.grid
    inputs, below = maps[:, : layer.start], gradient.columns(0, layer.start)
    norm1 = layer.norm1.norm(call.moments.columns(0, layer.start), *parameters[:2])
    weight1 = parameters[2]
    above = gradient.columns(layer.start, layer.end)
    call.shared.join_sums(above)
    source = Source(maps[:, layer.start : layer.end], call.moments.mean[:, layer.start : layer.end])
    if layer.norm2 is None or bottleneck is None:
        above = _through_dropout(call, layer.drop1, above, source)
        found = kernels.convolve_backward(above, source, inputs, norm1, weight1, below, grid, add=True)
        return _like(parameters, found)
    above = _through_dropout(call, layer.drop2, above, source)
    moments = call.bottleneck_moments.columns(layer.bottleneck_start, layer.bottleneck_end)
    norm2 = layer.norm2.norm(moments, *parameters[3:5])
    between = Gradient(torch.empty_like(bottleneck), torch.empty_like(moments.mean), torch.empty_like(moments.mean))
    found2 = kernels.convolve_backward(above, source, bottleneck, norm2, parameters[5], between, grid, add=False)
    call.shared.join_sums(between)
    source = Source(bottleneck, moments.mean)
    between = _through_dropout(call, layer.drop1, between, source)
    found1 = kernels.pointwise_backward(between, source, inputs, norm1, weight1.flatten(1), below, grid, add=True)
    return _like(parameters, [*found1, *found2])


def _through_dropout(call: _BlockCall, mask: _Mask | None, gradient: Gradient, source: Source) -> Gradient:
    if mask is None:
        return gradient
    finished = call.kernels.finish(gradient, source, call.grid)
    mask.apply_(finished)
    return Gradient(finished, torch.zeros_like(gradient.a), torch.zeros_like(gradient.b))


def _finished(call: _BlockCall, maps: Tensor, gradient: Gradient, start: int, end: int) -> Tensor:
    columns = gradient.columns(start, end)
    call.shared.join_sums(columns)
    source = Source(maps[:, start:end], call.moments.mean[:, start:end])
    return call.kernels.finish(columns, source, call.grid)


def _like(parameters: list[Tensor], gradients: Any) -> list[Tensor]:
    """Gradients in the shape of their parameters; a 1x1 convolution's with its strides, too, which DDP compares."""
    return [
        gradient.contiguous().as_strided(parameter.shape, parameter.stride()) if gradient.dim() == 2 else gradient
        for parameter, gradient in zip(parameters, gradients, strict=True)
    ]
