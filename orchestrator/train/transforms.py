"""The transforms of a plan as the loaders take them."""

from dataclasses import asdict

from orchestrator.data.color import ColorTransform
from orchestrator.data.transforms import EvalTransform, TrainTransform
from orchestrator.plan.plan import EvalTransformPlan, TrainTransformPlan


def train_transform(plan: TrainTransformPlan) -> TrainTransform:
    """Random crop, mirror and colours."""
    color = None if plan.color is None else ColorTransform(**asdict(plan.color))
    return TrainTransform(**(asdict(plan) | {"color": color}))


def eval_transform(plan: EvalTransformPlan) -> EvalTransform:
    """Resize and centre crop."""
    return EvalTransform(**asdict(plan))
