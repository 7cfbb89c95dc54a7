"""What a residual network for 32 px images costs, stage by stage."""

from collections.abc import Iterator, Sequence

from orchestrator.plan.residual import BOTTLENECK_EXPANSION, ResidualArchitecture, ResidualUnit, Unit
from orchestrator.plan.stage_costs import Convolution, FootprintRow, cifar_stem, head_of_norm, shape_text


def residual_rows(
    architecture: ResidualArchitecture, *, num_classes: int, in_chans: int, image_size: int
) -> Iterator[FootprintRow]:
    """The stages of a residual network."""
    stem = cifar_stem(in_chans, architecture.num_init_features, image_size)
    has_late_norm = architecture.unit != "basic"
    yield stem if has_late_norm else _with_norm(stem, architecture.num_init_features, image_size)
    side = image_size
    for number, units in enumerate(architecture.stages(), start=1):
        row, side = _stage(architecture.unit, units, number, side)
        yield row
    yield (head_of_norm if has_late_norm else _head)(architecture.widths[-1], num_classes, side)


def _with_norm(stem: FootprintRow, channels: int, side: int) -> FootprintRow:
    """The stem with a norm behind it, whose input is kept, too."""
    kept = stem.kept_values + channels * side**2
    return FootprintRow(
        stage=stem.stage,
        output=stem.output,
        layers=f"{stem.layers}, norm, ReLU",
        num_parameters=stem.num_parameters + 2 * channels,
        num_multiply_adds=stem.num_multiply_adds,
        kept_values=kept,
        kept_values_memory_efficient=kept,
    )


def _stage(unit: Unit, units: Sequence[ResidualUnit], number: int, side: int) -> tuple[FootprintRow, int]:
    """The row of a stage whose input is `side` pixels wide, and the side of what it leaves."""
    num_parameters = num_multiply_adds = kept = 0
    for each in units:
        convs, shortcut = _convolutions(unit, each, side), _shortcut(unit, each, side)
        num_parameters += sum(conv.num_parameters for conv in (*convs, *shortcut)) + _norm_parameters(unit, convs)
        num_multiply_adds += sum(conv.num_multiply_adds for conv in (*convs, *shortcut))
        kept += _kept_values(unit, each, convs, side)
        side = _strided(side, each.stride)
    kernels = ", ".join(f"{conv.kernel}x{conv.kernel} conv" for conv in convs)
    row = FootprintRow(
        stage=f"Stage {number}",
        output=shape_text(side, units[-1].out_channels),
        layers=f"[{kernels}] x {len(units)}",
        num_parameters=num_parameters,
        num_multiply_adds=num_multiply_adds,
        kept_values=kept,
        kept_values_memory_efficient=kept,
    )
    return row, side


def _convolutions(unit: Unit, shape: ResidualUnit, side: int) -> tuple[Convolution, ...]:
    in_channels, out_channels, side = shape.in_channels, shape.out_channels, _strided(side, shape.stride)
    if unit == "bottleneck":
        width = out_channels // BOTTLENECK_EXPANSION
        return (
            Convolution(in_channels, width, 1, side),
            Convolution(width, width, 3, side),
            Convolution(width, out_channels, 1, side),
        )
    return Convolution(in_channels, out_channels, 3, side), Convolution(out_channels, out_channels, 3, side)


def _shortcut(unit: Unit, shape: ResidualUnit, side: int) -> tuple[Convolution, ...]:
    if unit == "basic" or shape.in_channels == shape.out_channels:
        return ()
    return (Convolution(shape.in_channels, shape.out_channels, 1, _strided(side, shape.stride)),)


def _norm_parameters(unit: Unit, convs: Sequence[Convolution]) -> int:
    """Weights and biases of the norms: behind each convolution of a basic unit, in front of each of the others."""
    if unit == "basic":
        return sum(2 * conv.out_channels for conv in convs)
    return sum(conv.num_norm_parameters for conv in convs)


def _kept_values(unit: Unit, shape: ResidualUnit, convs: Sequence[Convolution], side: int) -> int:
    """The unit's input, and what its norms and convolutions read."""
    read_first = shape.in_channels * side**2
    if unit == "basic":  # the input, what both norms read, and what the second convolution reads
        return read_first + 2 * convs[0].num_outputs + convs[1].num_outputs
    return 2 * read_first + sum(2 * conv.num_outputs for conv in convs[:-1])


def _head(in_channels: int, num_classes: int, side: int) -> FootprintRow:
    """Average pool and classifier. Keeps the last ReLU's output and the classifier's input."""
    kept = in_channels * side**2 + in_channels
    return FootprintRow(
        stage="Classification",
        output=str(num_classes),
        layers=f"{side}x{side} average pool, fully connected",
        num_parameters=(in_channels + 1) * num_classes,
        num_multiply_adds=in_channels * num_classes,
        kept_values=kept,
        kept_values_memory_efficient=kept,
    )


def _strided(side: int, stride: int) -> int:
    """The side behind a convolution that pads by half of its kernel."""
    return -(-side // stride)
