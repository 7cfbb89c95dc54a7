"""The transforms of a plan as the loaders take them."""

from dataclasses import asdict

from orchestrator.data.transforms import EvalTransform, TrainTransform
from orchestrator.plan.plan import EvalTransformPlan, TrainTransformPlan


def train_transform(plan: TrainTransformPlan) -> TrainTransform:
    """Random crop and mirror."""
    return TrainTransform(**asdict(plan))


def eval_transform(plan: EvalTransformPlan) -> EvalTransform:
    """Resize and centre crop."""
    return EvalTransform(**asdict(plan))
