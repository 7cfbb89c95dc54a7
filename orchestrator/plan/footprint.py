"""What a network costs: parameters, multiply-adds and the maps that training keeps, stage by stage; free of torch."""

from orchestrator.plan.architecture import DenseNetArchitecture
from orchestrator.plan.densenet_costs import densenet_rows
from orchestrator.plan.networks import Architecture
from orchestrator.plan.residual_costs import residual_rows
from orchestrator.plan.stage_costs import Footprint


def footprint(architecture: Architecture, *, num_classes: int, in_chans: int = 3, image_size: int) -> Footprint:
    """Count a network on square images of image_size pixels a side.

    Raises UsageError where the images are so small that nothing is left of them after the last pool.
    """
    if isinstance(architecture, DenseNetArchitecture):
        rows = densenet_rows(architecture, num_classes=num_classes, in_chans=in_chans, image_size=image_size)
    else:
        rows = residual_rows(architecture, num_classes=num_classes, in_chans=in_chans, image_size=image_size)
    return Footprint(rows=tuple(rows))
