"""Error against parameters and multiply-adds: the paper's Figures 3 and 4, points with a printed source alone.

The figures' own points are printed nowhere. What is drawn are the tables' DenseNets and pre-activation ResNets, the
wide DenseNets and DenseNet-161 of the README of the authors' code, and the ResNets of the README of the public Torch
code that the paper builds on. Networks are counted here; the paper prints rounded figures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.plan.footprint import footprint
from orchestrator.plan.networks import DEFAULT_TASKS, find_architecture
from orchestrator.plan.paper import DENSENET_ROWS, IMAGENET_ROWS, OTHER_ROWS, WIDE_ROWS, Setting, SmallImagesRow
from orchestrator.report.network import TIMM_RESNETS, Cost
from orchestrator.report.setting import SettingOrImagenet


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A network."""

    name: str
    cost: Cost
    error: float
    """In percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Networks of one kind, by their size."""

    label: str
    points: Sequence[Point]


TORCH_README: Final = {"resnet18": 30.41, "resnet34": 26.73, "resnet50": 24.01, "resnet101": 22.44}
AUTHORS_README: Final = {"densenet161": 22.2}


def papers_lines(setting: SettingOrImagenet) -> tuple[Line, ...]:
    """What the paper's figure for that setting has, as far as it has a source. ImageNet: top-1, one crop."""
    lines = _imagenet() if setting == "imagenet" else _small_images(setting)
    return tuple(line for line in lines if line.points)


def _imagenet() -> Iterator[Line]:
    densenets = [(row.network, row.top1[0]) for row in IMAGENET_ROWS]
    yield Line(label="DenseNet-BC, Table 3", points=[_counted(name, error) for name, error in densenets])
    yield Line(
        label="DenseNet-161, authors' README",
        points=[_counted(name, error) for name, error in AUTHORS_README.items()],
    )
    resnets = [Point(name=name, cost=TIMM_RESNETS[f"timm:{name}"], error=error) for name, error in TORCH_README.items()]
    yield Line(label="ResNet, Torch code's README", points=resnets)


def _small_images(setting: Setting) -> Iterator[Line]:
    for label, rows in (
        ("DenseNet, Table 2", [row for row in DENSENET_ROWS if "BC" not in row.method]),
        ("DenseNet-BC, Table 2", [row for row in DENSENET_ROWS if "BC" in row.method]),
        ("Wide DenseNet-BC, authors' README", WIDE_ROWS),
        ("ResNet (pre-activation), Table 2", [row for row in OTHER_ROWS if "pre-activation" in row.method]),
    ):
        yield Line(label=label, points=list(_points(rows, setting)))


def _points(rows: Sequence[SmallImagesRow], setting: Setting) -> Iterator[Point]:
    for row in rows:
        error = row.errors[setting]
        if row.network is not None and error is not None:
            num_classes = 100 if setting.startswith("c100") else 10
            yield _counted(row.network, error, num_classes=num_classes)


def _counted(name: str, error: float, *, num_classes: int | None = None) -> Point:
    architecture = find_architecture(name)
    task = DEFAULT_TASKS[architecture.stem]
    counted = footprint(architecture, num_classes=num_classes or task.num_classes, image_size=task.image_size)
    cost = Cost(num_parameters=counted.num_parameters, num_multiply_adds=counted.num_multiply_adds)
    return Point(name=name, cost=cost, error=error)
