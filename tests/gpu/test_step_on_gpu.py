"""On a real card: kernels of full size, recorded steps, and what only a GPU can tell."""

import numpy as np
import pytest
import torch

from orchestrator.data.batch import Batch
from orchestrator.models.block.kernels import Grid
from orchestrator.models.block.select import kernels_for
from orchestrator.plan.cluster import ClusterShape
from orchestrator.plan.groups import group_shares
from orchestrator.plan.plan import Plan
from orchestrator.plan.resolve import DatasetFacts, resolve
from orchestrator.plan.versions import COMPILER
from orchestrator.recipe.load import load_recipe
from orchestrator.train.graph import WARM_UP, CaptureOnGpu
from orchestrator.train.images import Normalize
from orchestrator.train.network import build_network
from orchestrator.train.optimizer import build_optimizer
from orchestrator.train.step import TrainingStep
from orchestrator.train.world import World
from tests.kernels.test_block_kernels import DTYPES, assert_as_exact_as_plain, case, of_groups_with_images, written

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

GRID = Grid(group_sizes=(5, 4, 0, 4), height=28, width=28, num_values=(3920, 3136, 0, 3136))
NUM_STEPS = WARM_UP + 4


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_inputs", [96, 300])
def test_kernels_of_full_size_are_as_exact_as_plain_operations(dtype, num_inputs):
    from orchestrator.models.block.triton import TritonKernels

    def operation(kernels, inputs):
        results = {}
        for name, weight in (("pointwise", inputs.pointwise), ("convolve", inputs.convolution)):
            out, moments = written(inputs, GRID.num_rows, weight.shape[0])
            getattr(kernels, name)(inputs.maps, inputs.norm(), weight, out, moments, GRID)
            into = inputs.fresh_into()
            grads = getattr(kernels, f"{name}_backward")(
                inputs.gradient(), inputs.source(), inputs.maps, inputs.norm(), weight, into, GRID, add=True
            )
            found = {"out": out, **of_groups_with_images(moments, GRID), **grads._asdict()}
            found |= {"into": into.grad, "a": into.a, "b": into.b}
            results |= {f"{name} {key}": value for key, value in found.items()}
        return results

    torch.backends.cudnn.allow_tf32 = False
    try:
        inputs = case(GRID, dtype, torch.device("cuda"), num_inputs=num_inputs, num_outputs=32)
        assert_as_exact_as_plain(TritonKernels(), inputs, dtype, operation)
    finally:
        torch.backends.cudnn.allow_tf32 = True


def test_a_gpu_of_this_kind_gets_triton_s_kernels():
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU is older than those that Triton's kernels are for")
    assert kernels_for("cuda").name.startswith("triton")


def gpu_plan(*overrides: str) -> Plan:
    settings = ["model.name=densenet121", "train.global_batch_size=64", "train.batch_norm_groups=4"]
    settings += ["data.train.image_size=32", "cluster.workers=1", "cluster.gpus_per_worker=1", *overrides]
    facts = DatasetFacts(num_train_images=64 * 40, num_val_images=4, num_classes=10, fingerprint="sha256:0")
    cluster = ClusterShape(num_cpus=2, num_gpus=1)
    return resolve(
        load_recipe("demo", settings),
        cluster=cluster,
        dataset=facts,
        versions={COMPILER: "12.2.0"},
        loader_available="pytorch",
    )


def losses(plan: Plan, *, recorded: bool) -> tuple[list[list[float]], str]:
    """Totals of some steps, and whether they were replayed."""
    numerics, device = plan.numerics, torch.device("cuda")
    model = build_network(plan, device)
    step = TrainingStep(
        model,
        build_optimizer(model, numerics.optimizer),
        torch.amp.GradScaler("cuda", enabled=numerics.precision == "fp16"),
        numerics=numerics,
        group_shares=[group_shares(num_groups=4, world_size=1, rank=0)],
        world=World.single("cuda"),
        normalize=Normalize(mean=numerics.mean, std=numerics.std, device=device, channels_last=numerics.channels_last),
        capture=CaptureOnGpu(device) if recorded else None,
    )
    totals = []
    for number in range(NUM_STEPS):
        generator = torch.Generator().manual_seed(number)
        batches = iter(
            Batch(
                images=torch.randint(0, 256, (16, 32, 32, 3), dtype=torch.uint8, generator=generator).cuda(),
                labels=torch.randint(0, 10, (16,), generator=generator).cuda(),
                indices=np.arange(16, dtype=np.int64),
                epoch=0,
            )
            for _ in range(4)
        )
        totals.append(step.run(lambda batches=batches: next(batches), step=number, learning_rate=0.1).totals.tolist())
    return totals, step.graphs


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(("block", "drop_rate"), [("reference", 0.2), ("fused", 0.0), ("fused", 0.2)])
def test_recorded_steps_are_replayed_and_bitwise_those_that_are_not(precision, block, drop_rate):
    model = [f"model.block={block}", f"model.drop_rate={drop_rate}"]
    plan = gpu_plan(f"train.precision={precision}", *model, "train.channels_last=true")
    replayed, how = losses(plan, recorded=True)
    assert how == "replayed"
    assert replayed == losses(plan, recorded=False)[0]
