"""How many images each class should have: by the record of what was prepared, or as ImageNet is published."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from orchestrator.data.folder import Fault
from orchestrator.data.prepare.imagenet import read_devkit
from orchestrator.data.prepare.record import Record

_NUM_IMAGENET_TRAIN = 1_281_167
_IMAGENET_TRAIN_BY_CLASS = range(732, 1301)  # the smallest and the largest class (Russakovsky et al. 2015, table 2)
_IMAGENET_VAL_BY_CLASS = range(50, 51)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a data set should hold."""

    source: str
    """Who says so, for people."""
    num_images: Mapping[str, Mapping[str, range]]
    """Of each class of each split, the numbers that it may be."""
    totals: Mapping[str, int]
    """Of each split."""

    def faults(self, found: Mapping[str, Mapping[str, int]]) -> list[Fault]:
        """What differs. found: the number of images of each class of each split."""
        faults = []
        for split, classes in self.num_images.items():
            of_split = _class_faults(split, classes, found[split])
            total, expected = sum(found[split].values()), self.totals[split]
            if not of_split and total != expected:  # where a class may have one of several numbers
                of_split = [Fault(path=split, problem=f"has {total:,} images and should have {expected:,}")]
            faults += of_split
        return faults


def expectation_of(
    record: Record | None, found: Mapping[str, Mapping[str, int]], *, devkit: Path | None
) -> Expectation | None:
    """What a data set should hold; None if nobody knows.

    That is what a development kit of ImageNet says, if one is given; what its archives held, if it was prepared by this
    program; or what is published of ImageNet, if most of ImageNet's classes are there.
    record: of the preparation. found: the number of images of each class of each split. Raises DataError for an
    unreadable devkit.
    """
    if devkit is None and record is not None and record.num_images is not None:
        return _exactly("the archives that it was prepared from", record.num_images)
    if devkit is not None:
        kit = read_devkit(devkit)
        val = dict.fromkeys(kit.num_train_images, 0)
        for class_name in kit.val_classes:
            val[class_name] += 1
        return _exactly("ImageNet's development kit", {"train": kit.num_train_images, "val": val})
    if 2 * len(set(imagenet_classes()) & set(found["train"])) > len(imagenet_classes()):
        return _published_imagenet()
    return None


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The synsets of ILSVRC 2012 in the order of their names, which is the order of published weights' outputs."""
    return tuple(files("orchestrator.data").joinpath("imagenet_classes.txt").read_text().split())


def _exactly(source: str, num_images: Mapping[str, Mapping[str, int]]) -> Expectation:
    return Expectation(
        source=source,
        num_images={
            split: {name: range(count, count + 1) for name, count in classes.items()}
            for split, classes in num_images.items()
        },
        totals={split: sum(classes.values()) for split, classes in num_images.items()},
    )


def _published_imagenet() -> Expectation:
    return Expectation(
        source="what is published of ImageNet (ILSVRC 2012)",
        num_images={
            "train": dict.fromkeys(imagenet_classes(), _IMAGENET_TRAIN_BY_CLASS),
            "val": dict.fromkeys(imagenet_classes(), _IMAGENET_VAL_BY_CLASS),
        },
        totals={"train": _NUM_IMAGENET_TRAIN, "val": 50 * len(imagenet_classes())},
    )


def _class_faults(split: str, expected: Mapping[str, range], found: Mapping[str, int]) -> list[Fault]:
    faults = []
    for name in sorted({*expected, *found}):
        if name not in expected:
            problem = "is a class that shouldn't be there"
        elif name not in found:
            problem = f"is missing and should have {_numbers(expected[name])} images"
        elif found[name] not in expected[name]:
            problem = f"has {found[name]:,} images and should have {_numbers(expected[name])}"
        else:
            continue
        faults.append(Fault(path=f"{split}/{name}", problem=problem))
    return faults


def _numbers(numbers: range) -> str:
    return f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"
