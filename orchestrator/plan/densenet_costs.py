"""What a DenseNet costs, stage by stage, as in the paper's Table 1."""

from collections.abc import Iterator

from orchestrator.errors import UsageError
from orchestrator.plan.architecture import BlockShape, DenseNetArchitecture
from orchestrator.plan.stage_costs import Convolution, FootprintRow, cifar_stem, head_of_norm, shape_text


def densenet_rows(
    architecture: DenseNetArchitecture, *, num_classes: int, in_chans: int, image_size: int
) -> Iterator[FootprintRow]:
    """The stages of a DenseNet. Raises UsageError where nothing is left of the images before the last block."""
    if architecture.stem == "imagenet":
        yield from _imagenet_stem(in_chans, architecture.num_init_features, image_size)
        side = _halved_up(_halved_up(image_size))
    else:
        yield cifar_stem(in_chans, architecture.num_init_features, image_size)
        side = image_size
    for number, block in enumerate(architecture.blocks(), start=1):
        if side < 1:
            raise UsageError(f"images of {image_size} px are too small: nothing is left of them at block {number}")
        yield _dense_block(architecture, block, number, side)
        if block.transition_channels is not None:
            yield _transition(block.out_channels, block.transition_channels, number, side)
            side //= 2
    yield head_of_norm(architecture.num_features, num_classes, side)


def _imagenet_stem(in_chans: int, out_channels: int, image_size: int) -> Iterator[FootprintRow]:
    """Keeps the image, the norm's input and the pool's input."""
    conv = Convolution(in_chans, out_channels, 7, _halved_up(image_size))
    kept = in_chans * image_size**2 + 2 * conv.num_outputs
    pooled_side = _halved_up(conv.side)
    yield FootprintRow(
        stage="Convolution",
        output=shape_text(conv.side, out_channels),
        layers="7x7 conv, stride 2",
        num_parameters=conv.num_parameters + 2 * out_channels,
        num_multiply_adds=conv.num_multiply_adds,
        kept_values=kept,
        kept_values_memory_efficient=kept,
    )
    yield FootprintRow(
        stage="Pooling",
        output=shape_text(pooled_side, out_channels),
        layers="3x3 max pool, stride 2",
        num_parameters=0,
        num_multiply_adds=0,
        kept_values=0,
        kept_values_memory_efficient=0,
        kept_indices=out_channels * pooled_side**2,
    )


def _dense_block(architecture: DenseNetArchitecture, block: BlockShape, number: int, side: int) -> FootprintRow:
    """Keeps every norm's input and every convolution's; recomputing, each map that a norm will read, once."""
    convs = [conv for layer in range(block.num_layers) for conv in _layer(architecture, block, layer, side)]
    # The last layer's maps are read by the concatenation alone, which the transition (or the head) counts.
    read_within_block = (block.in_channels - architecture.growth_rate) * side**2
    kernels = ", ".join(f"{conv.kernel}x{conv.kernel} conv" for conv in _layer(architecture, block, 0, side))
    return FootprintRow(
        stage=f"Block {number}",
        output=shape_text(side, block.out_channels),
        layers=f"[{kernels}] x {block.num_layers}",
        num_parameters=sum(conv.num_norm_parameters + conv.num_parameters for conv in convs),
        num_multiply_adds=sum(conv.num_multiply_adds for conv in convs),
        kept_values=sum(2 * conv.num_inputs for conv in convs),
        kept_values_memory_efficient=read_within_block + sum(conv.num_outputs for conv in convs),
    )


def _layer(architecture: DenseNetArchitecture, block: BlockShape, layer: int, side: int) -> tuple[Convolution, ...]:
    growth_rate = architecture.growth_rate
    in_channels = block.in_channels + layer * growth_rate
    width = architecture.bn_size * growth_rate
    if not width:
        return (Convolution(in_channels, growth_rate, 3, side),)
    return Convolution(in_channels, width, 1, side), Convolution(width, growth_rate, 3, side)


def _transition(in_channels: int, out_channels: int, number: int, side: int) -> FootprintRow:
    """Keeps the norm's input, the convolution's (unless recomputed) and the pool's."""
    conv = Convolution(in_channels, out_channels, 1, side)
    return FootprintRow(
        stage=f"Transition {number}",
        output=shape_text(side // 2, out_channels),
        layers="1x1 conv, 2x2 average pool",
        num_parameters=conv.num_norm_parameters + conv.num_parameters,
        num_multiply_adds=conv.num_multiply_adds,
        kept_values=2 * conv.num_inputs + conv.num_outputs,
        kept_values_memory_efficient=conv.num_inputs + conv.num_outputs,
    )


def _halved_up(side: int) -> int:
    """The side behind a stride of 2 whose padding is half of its kernel."""
    return (side + 1) // 2
