"""Any of timm's models can be named; what can't be trained exactly is refused with the reason before it starts."""

from dataclasses import replace

import pytest
import torch

from orchestrator.errors import NotFoundError, PlanError, UsageError
from orchestrator.models import create_model
from orchestrator.plan.cluster import ClusterShape
from orchestrator.plan.plan import Plan
from orchestrator.plan.resolve import resolve
from orchestrator.recipe.load import load_recipe
from orchestrator.train.rehearsal import rehearse


def plan_of(name: str, *overrides: str) -> Plan:
    recipe = load_recipe("densenet121", [f"model.name=timm:{name}", *overrides])
    cluster = ClusterShape(num_cpus=8)
    return resolve(recipe, cluster=cluster, dataset=None, versions={}, loader_available="pytorch")


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b0", "mobilenetv3_small_100", "regnety_002"])
def test_models_with_batch_norm_of_torch_s_kind_can_be_trained(name):
    assert rehearse(plan_of(name)) == ()


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto", "resnetv2_50x1_bit"])
def test_models_without_batch_norm_can_be_trained_and_the_plan_says_what_groups_then_mean(name):
    (note,) = rehearse(plan_of(name))
    assert "has no batch norm" in note


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("resnetv2_50", ("model.options.norm_layer=evonormb0",), "EvoNorm2dB0, which keeps running statistics in its"),
        ("vit_tiny_patch16_224", ("data.train.image_size=128",), "images of 128 px doesn't pass: Input height (128)"),
        ("resnet18", ("train.batch_norm_groups=256", "data.train.image_size=32"), "of 1 image of 32 px doesn't pass"),
    ],
)
def test_what_can_not_be_trained_exactly_is_refused_with_the_reason(name, overrides, said):
    with pytest.raises(PlanError) as caught:
        rehearse(plan_of(name, *overrides))
    assert said in str(caught.value)
    assert f"timm:{name} can't be trained as planned" in str(caught.value)


def test_the_short_last_batch_is_rehearsed_too():
    plan = plan_of("resnet18", "data.train.image_size=32")
    assert rehearse(plan) == ()
    plan = replace(plan, numerics=replace(plan.numerics, last_batch_size=5))
    with pytest.raises(PlanError, match="of 1 image of 32 px doesn't pass"):
        rehearse(plan)


def test_a_norm_that_can_not_be_split_over_workers_is_refused_before_it_starts():
    plan = plan_of("efficientnet_b0", "cluster.workers=8", "cluster.split_groups=true")
    with pytest.raises(PlanError, match="BatchNormAct2d, whose groups can't be split over workers"):
        rehearse(plan)


def test_dropout_that_a_model_has_by_default_is_switched_off_and_said():
    for name in ("ghostnet_050", "focalnet_tiny_srf"):
        notes = rehearse(plan_of(name))
        assert "that is switched off" in notes[-1]
    model = create_model("timm:ghostnet_050", num_classes=3, seed=0)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(model(images), model(images))


def test_dropout_of_timm_s_is_refused_since_it_belongs_to_no_sample():
    with pytest.raises(UsageError, match="drops values at random in"):
        rehearse(plan_of("resnet18", "model.options.drop_path_rate=0.1"))


@pytest.mark.parametrize("option", ["num_classes=5", "checkpoint_path=x.pth", "drop_rate=0.1", "pretrained=true"])
def test_what_is_no_option_of_a_network_is_refused(option):
    with pytest.raises(PlanError, match="not an option of the network itself; leave it out"):
        plan_of("resnet18", f"model.options.{option}")


def test_options_reach_timm_and_unknown_ones_are_named():
    assert rehearse(plan_of("resnet50", "model.options.zero_init_last=false")) == ()
    with pytest.raises(UsageError, match="timm can't make resnet50 with zero_last=False"):
        rehearse(plan_of("resnet50", "model.options.zero_last=false"))
    with pytest.raises(NotFoundError, match="Nearest: resnet50"):
        rehearse(plan_of("resnet500"))
