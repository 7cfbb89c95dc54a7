"""Which of the paper's settings a run is held against, and that setting's own numbers, from the recipe that has them.

A setting is a data set with or without augmentation; it is known by the data's size and classes. What the paper's run
would have used is what the recipe that ships for the same network, or for another one in the same setting, resolves to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from orchestrator.errors import DnctlError
from orchestrator.plan.cluster import ClusterShape
from orchestrator.plan.networks import TIMM_PREFIX
from orchestrator.plan.paper import (
    DENSENET_ROWS,
    IMAGENET_ROWS,
    OTHER_ROWS,
    SETTING_NAMES,
    WIDE_ROWS,
    ImagenetRow,
    Setting,
    SmallImagesRow,
)
from orchestrator.plan.plan import Numerics, Plan
from orchestrator.plan.resolve import DatasetFacts, resolve
from orchestrator.recipe.library import shipped_recipes
from orchestrator.recipe.load import load_recipe

SettingOrImagenet = Setting | Literal["imagenet"]

SMALL_IMAGES_ROWS: Final = (*OTHER_ROWS, *WIDE_ROWS, *DENSENET_ROWS)
"""Table 2, and the wide networks of the README of the authors' code, in the order in which they are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Data:
    """A data set of the paper, known by its size: images that are trained on or held out, and classes."""

    name: str
    num_train_images: int
    num_classes: int
    plain: SettingOrImagenet
    augmented: SettingOrImagenet


_DATA: Final = (
    _Data(name="ImageNet", num_train_images=1_281_167, num_classes=1000, plain="imagenet", augmented="imagenet"),
    _Data(name="CIFAR-10", num_train_images=50_000, num_classes=10, plain="c10", augmented="c10plus"),
    _Data(name="CIFAR-100", num_train_images=50_000, num_classes=100, plain="c100", augmented="c100plus"),
    _Data(name="SVHN", num_train_images=604_388, num_classes=10, plain="svhn", augmented="svhn"),
)
_ANY_NETWORK: Final[Mapping[str, str]] = {"imagenet": "densenet121"}
"""A recipe of a setting whose network is put aside, where the run's own has none; elsewhere densenet40_12's."""


def setting_name(setting: SettingOrImagenet) -> str:
    """As the paper writes it."""
    return "ImageNet" if setting == "imagenet" else SETTING_NAMES[setting]


def setting_of(numerics: Numerics) -> SettingOrImagenet | None:
    """The setting that a run is held against; None if its data is none of the paper's."""
    num_images = numerics.num_train_images + numerics.num_held_out_images
    for data in _DATA:
        if (num_images, numerics.num_classes) == (data.num_train_images, data.num_classes):
            return data.augmented if _is_augmented(numerics) else data.plain
    return None


def _is_augmented(numerics: Numerics) -> bool:
    transform = numerics.train_transform
    return transform.crop != "pad" or transform.padding > 0 or transform.mirror > 0 or transform.color is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class PapersSettings:
    """What the paper's run would have had."""

    plan: Plan
    recipe: str
    is_of_this_network: bool
    """If not, the recipe is another network's, and only what is around the network can be compared."""


def papers_settings(numerics: Numerics, setting: SettingOrImagenet) -> PapersSettings | None:
    """What the paper's run of this network in this setting would have had, on the same images.

    None if the network can't be had in it, as after a change of the recipes.
    """
    facts = DatasetFacts(
        num_train_images=numerics.num_train_images + numerics.num_held_out_images,
        num_val_images=numerics.num_test_images or numerics.num_val_images,
        num_classes=numerics.num_classes,
        fingerprint=numerics.data_fingerprint,
    )
    name = numerics.model.name
    shipped = {file.stem for file in shipped_recipes()}
    own = recipe_name(numerics, setting)
    is_own = own in shipped
    chosen = own if is_own else _ANY_NETWORK.get(setting, f"densenet40_12_{setting}")
    overrides = [f"seed={numerics.seed}", f"model.name={name}", "cluster.workers=1", "cluster.gpus_per_worker=0"]
    try:
        plan = resolve(
            load_recipe(chosen, overrides, environment={}),
            cluster=ClusterShape(num_cpus=1),
            dataset=facts,
            versions={},
            loader_available="pytorch",
        )
    except DnctlError:
        return None
    return PapersSettings(plan=plan, recipe=chosen, is_of_this_network=is_own)


def recipe_name(numerics: Numerics, setting: SettingOrImagenet) -> str:
    """What the recipe of this network in this setting is called, if there is one."""
    name = numerics.model.name.removeprefix(TIMM_PREFIX)
    if setting == "imagenet":
        return name
    return f"{name}_sd_{setting}" if numerics.model.stochastic_depth else f"{name}_{setting}"


def small_images_row(numerics: Numerics) -> SmallImagesRow | None:
    """The row of Table 2 that has the run's network."""
    rows = [row for row in SMALL_IMAGES_ROWS if row.network == numerics.model.name]
    return next((row for row in rows if _has_stochastic_depth(row) == (numerics.model.stochastic_depth > 0)), None)


def _has_stochastic_depth(row: SmallImagesRow) -> bool:
    return "stochastic depth" in row.method


def imagenet_row(numerics: Numerics) -> ImagenetRow | None:
    """The row of Table 3 that has the run's network."""
    return next((row for row in IMAGENET_ROWS if row.network == numerics.model.name), None)
