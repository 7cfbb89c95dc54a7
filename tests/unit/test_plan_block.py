"""Which dense block a run uses is decided at launch, by a stated rule, and then kept."""

import pytest

from orchestrator.errors import PlanError
from orchestrator.plan.cluster import ClusterShape
from orchestrator.plan.plan import Plan
from orchestrator.plan.resolve import DatasetFacts, resolve, resolve_again
from orchestrator.recipe.load import load_recipe

FACTS = DatasetFacts(num_train_images=1000, num_val_images=100, num_classes=10, fingerprint="sha256:0")
COMPILER = {"c++": "12.2.0"}


def plan(recipe: str, *overrides: str, versions: dict[str, str] = COMPILER, gpu: str | None = None) -> Plan:
    return resolve(
        load_recipe(recipe, list(overrides)),
        cluster=ClusterShape(num_cpus=4, num_gpus=1 if gpu else 0, gpu_type=gpu),
        dataset=FACTS,
        versions=versions,
        loader_available="pytorch",
    )


@pytest.mark.parametrize(
    ("recipe", "versions", "gpu", "precision", "block"),
    [
        ("densenet121", COMPILER, None, "fp32", "fused"),
        ("densenet121", {}, None, "fp32", "reference"),
        ("densenet121", COMPILER, "NVIDIA H100 80GB HBM3", "fp16", "fused"),
        ("densenet121", COMPILER, "H200", "bf16", "fused"),
        ("densenet121", {}, "H200", "bf16", "reference"),
        ("densenet121", COMPILER, "H200", "fp32", "reference"),
        ("densenet121", COMPILER, "Tesla T4", "fp16", "reference"),
        ("demo", COMPILER, None, "fp32", "fused"),
        ("demo", {}, None, "fp32", "reference"),
        ("densenetbc100_12_c10", COMPILER, "H200", "bf16", "reference"),
    ],
    ids=[
        "a CPU",
        "a CPU without a compiler",
        "its sister",
        "the GPU that was measured",
        "a GPU without a compiler",
        "not in fp32",
        "an old GPU",
        "small images",
        "small images without a compiler",
        "small images, which no GPU was measured with",
    ],
)
def test_auto_is_decided_by_network_device_precision_and_compiler(recipe, versions, gpu, precision, block):
    chosen = plan(recipe, f"train.precision={precision}", versions=versions, gpu=gpu)
    assert chosen.numerics.model.block == block


def test_what_is_asked_for_is_taken_and_is_part_of_the_numerics():
    fused, reference = (plan("demo", f"model.block={block}") for block in ("fused", "reference"))
    assert fused.numerics.model.block == "fused"
    assert fused.numerics.fingerprint != reference.numerics.fingerprint


def test_fused_without_a_compiler_is_refused():
    with pytest.raises(PlanError, match=r"model\.block: the fused block is compiled where it runs.*install g\+\+"):
        plan("demo", "model.block=fused", versions={})


@pytest.mark.parametrize("name", ["timm:resnet18", "preresnet110"])
def test_fused_is_for_our_densenets(name):
    with pytest.raises(PlanError, match=r"model\.block.*it is for our DenseNets"):
        plan("demo", f"model.name={name}", "model.block=fused")


def test_a_run_keeps_its_block_when_its_schedule_is_changed_elsewhere():
    before = plan("densenet121", versions={})
    again = resolve_again(before, load_recipe("densenet121", ["train.epochs=100"]))
    assert again.numerics.model.block == "reference"


def test_the_estimate_counts_what_fused_blocks_keep():
    fused, reference = (plan("densenet121", f"model.block={block}").estimate.memory for block in ("fused", "reference"))
    assert fused.activations_bytes < reference.activations_bytes / 2
