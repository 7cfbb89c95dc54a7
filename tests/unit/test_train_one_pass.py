"""A rank's groups in one pass of the network make the step that passes of their own make."""

import numpy as np
import pytest
import torch
from torch import Tensor

from orchestrator.data.batch import Batch
from orchestrator.errors import PlanError
from orchestrator.models import create_model
from orchestrator.plan.cluster import ClusterShape
from orchestrator.plan.groups import group_shares
from orchestrator.plan.plan import Plan
from orchestrator.plan.resolve import DatasetFacts, resolve
from orchestrator.plan.versions import COMPILER
from orchestrator.recipe.load import load_recipe
from orchestrator.train.images import Normalize
from orchestrator.train.optimizer import build_optimizer
from orchestrator.train.step import TrainingStep
from orchestrator.train.world import World

FACTS = DatasetFacts(num_train_images=34, num_val_images=4, num_classes=10, fingerprint="sha256:0")


def plan(*, block: str = "fused") -> Plan:
    recipe = load_recipe("demo", [f"model.block={block}", "train.global_batch_size=16", "train.batch_norm_groups=3"])
    return resolve(
        recipe,
        cluster=ClusterShape(num_cpus=1),
        dataset=FACTS,
        versions={COMPILER: "12.2.0"},
        loader_available="pytorch",
    )


def make_step(made: Plan, *, one_pass: bool) -> TrainingStep:
    numerics, world = made.numerics, World.single()
    model = create_model(**numerics.model.arguments, num_classes=10, seed=0).double()
    normalize = Normalize(mean=numerics.mean, std=numerics.std, device=world.device, channels_last=False)
    step = TrainingStep(
        model,
        build_optimizer(model, numerics.optimizer),
        torch.amp.GradScaler("cpu", enabled=False),
        numerics=numerics,
        group_shares=[group_shares(num_groups=3, world_size=1, rank=0)],
        world=world,
        normalize=lambda images, color: normalize(images, color).double(),
        groups_in_one_pass=one_pass,
    )
    step.network = model
    return step


def trained(made: Plan, *, number: int, size: int, one_pass: bool) -> dict[str, Tensor]:
    step = make_step(made, one_pass=one_pass)
    generator = torch.Generator().manual_seed(0)
    first = 0
    batches = []
    for group in range(3):
        indices = np.arange(first, first + size // 3 + (group < size % 3))
        first += len(indices)
        images = torch.randint(256, (len(indices), 16, 16, 3), generator=generator, dtype=torch.uint8)
        labels = torch.randint(10, (len(indices),), generator=generator)
        batches.append(Batch(images=images, labels=labels, indices=indices, epoch=0))
    remaining = iter(batches)
    result = step.run(lambda: next(remaining), step=number, learning_rate=0.1)
    return {"totals": result.totals, **step.network.state_dict()}


@pytest.mark.parametrize(("number", "size"), [(0, 16), (2, 2)], ids=["uneven groups", "an empty group"])
def test_groups_in_one_pass_make_the_same_step(number, size):
    """The loss is computed in float32, all else in float64."""
    made = plan()
    together, apart = (trained(made, number=number, size=size, one_pass=one_pass) for one_pass in (True, False))
    for name, expected in apart.items():
        torch.testing.assert_close(together[name], expected, rtol=1e-5, atol=1e-6)


def test_one_pass_of_a_reference_network_is_refused():
    with pytest.raises(PlanError, match=r"model\.block=fused"):
        make_step(plan(block="reference"), one_pass=True)


@pytest.mark.parametrize(
    ("memory_gib", "block", "one_pass"), [(80, "fused", True), (4, "fused", False), (80, "reference", False)]
)
def test_a_gpu_takes_all_groups_at_once_if_they_fit(memory_gib, block, one_pass):
    recipe = load_recipe("densenet121", [f"model.block={block}", "cluster.workers=1"])
    made = resolve(
        recipe,
        cluster=ClusterShape(num_cpus=8, num_gpus=1, gpu_memory_bytes=memory_gib * 2**30),
        dataset=None,
        versions={COMPILER: "12.2.0"},
        loader_available="pytorch",
    )
    assert made.execution.groups_in_one_pass == one_pass
