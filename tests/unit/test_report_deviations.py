"""How far a run is from the paper: every setting has its say, and the paper's own recipes deviate in nothing."""

from dataclasses import fields

import pytest

from orchestrator.plan.plan import Deviation, ModelPlan, Numerics, OptimizerPlan
from orchestrator.report.deviations import FOLLOWS, NO_MATTER, RULES, deviations, recorded
from orchestrator.report.setting import papers_settings, setting_of, small_images_row
from tests.report_runs import make_plan

ON_C10PLUS = "densenet40_12_c10plus"


def _deviations(recipe: str, *overrides: str) -> list[str]:
    numerics = make_plan(recipe, *overrides).numerics
    setting = setting_of(numerics)
    assert setting is not None
    paper = papers_settings(numerics, setting)
    assert paper is not None
    return list(deviations(numerics, paper.plan.numerics, with_network=paper.is_of_this_network))


@pytest.mark.parametrize("recipe", ["cifarresnet110_sd_c10plus", "resnet50"])
def test_of_a_network_that_the_paper_has_not_only_what_is_around_it_is_compared(recipe: str):
    other = "model.stochastic_depth=0" if recipe.startswith("cifar") else "model.name=timm:efficientnet_b0"
    assert _deviations(recipe, other) == []
    assert _deviations(recipe, other, "train.epochs=10")[0].startswith("It is planned for 10 epochs instead of")


def test_every_field_of_the_numerics_is_said_follows_or_does_not_matter():
    parts = {"model": ModelPlan, "optimizer": OptimizerPlan}
    every = {
        f"{field.name}.{part.name}" if field.name in parts else field.name
        for field in fields(Numerics)
        for part in (fields(parts[field.name]) if field.name in parts else (field,))
    }
    said = {field for rule in RULES for field in rule.fields}
    assert said | FOLLOWS | NO_MATTER == every
    assert not said & (FOLLOWS | NO_MATTER)


@pytest.mark.parametrize(
    "recipe",
    [
        *("densenet121", "densenet264", "resnet50", "densenet100_12_svhn", "densenet40_12_c10", "densenet100_24_c100"),
        *("densenetbc190_40_c100plus", "densenetbc40_36_c10plus", "preresnet164_c10plus", "wideresnet16_4_svhn"),
        "cifarresnet110_sd_c10plus",
    ],
)
def test_the_papers_recipes_deviate_in_nothing(recipe: str):
    assert _deviations(recipe) == []


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epochs=100", "planned for 100 epochs instead of 300, 33.3 % of the paper's training"),
        ("train.global_batch_size=128 and train.batch_norm_groups=2", "Batches are of 128 images instead of 64."),
        ("train.batch_norm_groups=2", "Batch-norm statistics are of 32 images instead of 64."),
        ("train.optimizer.lr=0.05", "The learning rate begins at 0.05 instead of 0.1."),
        ("train.schedule.milestones=[0.4]", "falls at 40 % of the run instead of at 50 % and 75 %."),
        ("train.schedule.milestones=[]", "never falls; in the paper it falls at 50 % and 75 % of the run."),
        ("train.schedule.gamma=0.2", "falls to 0.2 of what it was each time instead of 0.1."),
        (
            "train.schedule.warmup_epochs=3",
            "rises from near 0 over the first 1 % of the run; the paper has no warm-up.",
        ),
        ("train.optimizer.momentum=0.8", "Momentum is 0.8 instead of 0.9."),
        ("train.optimizer.nesterov=false", "Momentum is the plain kind instead of Nesterov's."),
        ("train.optimizer.weight_decay=5e-4", "Weight decay is 0.0005 instead of 0.0001."),
        ("data.train.padding=2", "crops of images padded by 2 px"),
        ("data.train.color={jitter: 0.4, lighting: 0.1}", "colour jitter 0.4 and lighting noise 0.1"),
        ("data.std=[0.5, 0.5, 0.5]", "normalised by another mean or standard deviation"),
        ("data.eval.crops=10", "evaluated on ten crops of 32 px instead of the central 32 px."),
        ("data.holdout=5000", "5,000 training images are held out instead of 0"),
        ("model.compression=0.5", "isn't the densenet40_12 of the paper: compression 0.5 instead of 1.0."),
        ("model.drop_rate=0.2", "Dropout is 0.2 instead of 0."),
        ("model.init=timm", "drawn as timm draws them instead of as the authors do."),
        ("train.label_smoothing=0.1", "Labels are smoothed by 0.1; the paper has no smoothing."),
        ("train.clip_grad_norm=1.0", "Gradients are clipped to a norm of 1."),
        ("train.precision=bf16", "computed in bf16 instead of fp32."),
    ],
)
def test_a_setting_that_differs_is_said_and_no_other(override: str, said: str):
    (sentence,) = _deviations(ON_C10PLUS, *override.split(" and "))
    assert said in sentence


def test_on_imagenet_another_augmentation_is_said():
    (sentence,) = _deviations("densenet121", "data.train.crop=torchvision", "data.train.color=null")
    assert "as Torchvision draws them" in sentence
    assert "as Torch draws them, bicubic to 224 px, mirrored with probability 0.5, colour jitter 0.4" in sentence


def test_a_network_without_a_recipe_is_held_against_another_one_in_its_setting():
    assert _deviations("densenetbc100_12_c100", "model.name=densenetbc52_20", "train.epochs=30") == [
        "It is planned for 30 epochs instead of 300, 10 % of the paper's training."
    ]


def test_stochastic_depth_has_a_row_of_its_own():
    with_it = make_plan("cifarresnet110_sd_c10plus").numerics
    without_it = make_plan("cifarresnet110_sd_c10plus", "model.stochastic_depth=0").numerics
    rows = [small_images_row(numerics) for numerics in (with_it, without_it)]
    assert [row.errors["c10plus"] for row in rows if row is not None] == [5.23, 6.41]


def test_other_data_is_none_of_the_papers():
    assert setting_of(make_plan("demo").numerics) is None


def test_what_was_changed_on_resume_is_told_with_its_step():
    changes = (("optimizer.lr", "0.1", "0.05"), ("milestones_steps", "(96, 144)", "(58, 115)"))
    deviation = Deviation(step=76, changes=changes, numerics_before="sha256:", plan_before="plan-0.json")
    assert recorded(deviation, 24) == (
        "Changed on resume, after 3.167 epochs (step 76): lr 0.1 became 0.05; "
        "milestones steps (96, 144) became (58, 115)."
    )
