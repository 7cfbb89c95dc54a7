"""What the network of a run costs, counted from its plan; of timm's own models what is known of them without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from orchestrator.errors import UsageError
from orchestrator.plan.footprint import footprint
from orchestrator.plan.plan import Numerics
from orchestrator.plan.stage_costs import FootprintRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Trained values, and multiply-adds of one forward pass of one image."""

    num_parameters: int
    num_multiply_adds: int
    rows: tuple[FootprintRow, ...] = ()
    """Stage by stage, as in the paper's Table 1; empty where stages aren't counted."""


TIMM_RESNETS: Final[Mapping[str, Cost]] = {
    "timm:resnet18": Cost(num_parameters=11_689_512, num_multiply_adds=1_814_073_344),
    "timm:resnet34": Cost(num_parameters=21_797_672, num_multiply_adds=3_663_761_408),
    "timm:resnet50": Cost(num_parameters=25_557_032, num_multiply_adds=4_089_184_256),
    "timm:resnet101": Cost(num_parameters=44_549_160, num_multiply_adds=7_801_405_440),
    "timm:resnet152": Cost(num_parameters=60_192_808, num_multiply_adds=11_513_626_624),
}
"""For 1000 classes at 224 px, as `dnctl model show` measures them, which takes torch; a test measures them again."""


def cost_of(numerics: Numerics) -> Cost | None:
    """None for a model of timm's that isn't known here, or a known one on another task."""
    architecture, size = numerics.model.architecture, numerics.eval_transform.crop
    if architecture is None:
        return TIMM_RESNETS.get(numerics.model.name) if (numerics.num_classes, size) == (1000, 224) else None
    try:
        counted = footprint(architecture, num_classes=numerics.num_classes, image_size=size)
    except UsageError:
        return None
    return Cost(num_parameters=counted.num_parameters, num_multiply_adds=counted.num_multiply_adds, rows=counted.rows)
