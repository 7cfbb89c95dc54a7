"""ImageNet (ILSVRC 2012) in its official archives: a tar of 1000 tars, a tar of 50,000 files, and the development kit.

The development kit says which synsets are classes, how many training images each has, and which class each validation
image is of.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator.data.folder import printable
from orchestrator.data.prepare.archives import Archive
from orchestrator.data.prepare.matlab import load_mat
from orchestrator.data.prepare.parts import ArchivedDataset, Images, Part
from orchestrator.data.prepare.tars import Archived, Member, read_members, tar_members
from orchestrator.errors import DataError

ORIGIN = "https://image-net.org/download-images"
# Sums as torchvision has them; sizes as image-net.org's server states them.
TRAIN = Archive(name="ILSVRC2012_img_train.tar", md5="1d675b47d978889d74fa0da5fadfb00e", num_bytes=147_897_477_120)
VAL = Archive(name="ILSVRC2012_img_val.tar", md5="29b22e2961454d5413ddabcf34fc5622", num_bytes=6_744_924_160)
DEVKIT = Archive(name="ILSVRC2012_devkit_t12.tar.gz", md5="fa75699e90414af021442c21a62c3abf")

_META = "meta.mat"
_GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Devkit:
    """What the development kit says of the data set."""

    num_train_images: Mapping[str, int]
    """Of each class, by its synset's name (WNID), in the order of the names."""
    val_classes: tuple[str, ...]
    """The class of each validation image, in the order of their numbers."""


def archived_imagenet(folder: Path) -> ArchivedDataset:
    """The parts of ImageNet in a folder that holds its three archives. Raises DataError if they don't fit together."""
    devkit = read_devkit(folder / DEVKIT.name)
    train, val = Archived(folder / TRAIN.name), Archived(folder / VAL.name)
    return ArchivedDataset(parts=(*_train_parts(train, devkit), *_val_parts(val, devkit)))


def read_devkit(archive: Path) -> Devkit:
    """What ILSVRC2012_devkit_t12.tar.gz says. Raises DataError if it isn't that, UsageError without scipy."""
    files = read_members(archive, (_META, _GROUND_TRUTH))
    try:
        synsets = load_mat(files[_META], archive)["synsets"].ravel()
        classes = {
            int(synset["ILSVRC2012_ID"].item()): (str(synset["WNID"].item()), int(synset["num_train_images"].item()))
            for synset in synsets
            if int(synset["num_children"].item()) == 0  # the others are groups of classes
        }
        val_classes = tuple(classes[int(number)][0] for number in files[_GROUND_TRUTH].split())
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        raise DataError(f"{archive} doesn't hold what ImageNet's development kit holds: {error!r}.") from error
    if bad := [name for name, _ in classes.values() if not re.fullmatch(r"n\d{8}", name)]:
        raise DataError(f"{archive} names classes that are no synsets of WordNet: {printable(bad[0])}.")
    if lacking := sorted({name for name, _ in classes.values()} - set(val_classes)):
        raise DataError(f"{archive} says of no validation image that it is of {lacking[0]}.")
    return Devkit(num_train_images=dict(sorted(classes.values())), val_classes=val_classes)


def _train_parts(archive: Archived, devkit: Devkit) -> Iterator[Part]:
    tars = {member.name: member for member in tar_members(archive.path)}
    wanted = {f"{class_name}.tar" for class_name in devkit.num_train_images}
    _check_names(archive.path, set(tars), wanted)
    for class_name, num_images in devkit.num_train_images.items():
        inner = tars[f"{class_name}.tar"]
        yield Part(
            split="train",
            class_name=class_name,
            num_images=num_images,
            num_bytes=inner.num_bytes,
            open=_class_opener(archive, inner, class_name, num_images),
        )


def _class_opener(archive: Archived, inner: Member, class_name: str, num_images: int) -> Callable[[], Images]:
    def opened() -> Images:
        members = sorted(tar_members(archive.path, within=inner), key=lambda member: member.name)
        if bad := [m.name for m in members if not re.fullmatch(rf"{class_name}_\d+\.JPEG", m.name)]:
            raise DataError(
                f"{archive.path}, in its {inner.name}, holds {printable(bad[0])}, which is no image of the class."
            )
        if len(members) != num_images:
            counts = f"{len(members)} images, where the development kit says {num_images}"
            raise DataError(f"{archive.path}, in its {inner.name}, holds {counts}.")
        return archive.images(members)

    return opened


def _val_parts(archive: Archived, devkit: Devkit) -> Iterator[Part]:
    members = {member.name: member for member in tar_members(archive.path)}
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, len(devkit.val_classes) + 1)]
    _check_names(archive.path, set(members), set(names))
    by_class: dict[str, list[Member]] = defaultdict(list)
    for name, class_name in zip(names, devkit.val_classes, strict=True):
        by_class[class_name].append(members[name])
    for class_name in devkit.num_train_images:
        of_class = by_class[class_name]
        yield Part(
            split="val",
            class_name=class_name,
            num_images=len(of_class),
            num_bytes=sum(member.num_bytes for member in of_class),
            open=partial(archive.images, of_class),
        )


def _check_names(archive: Path, found: set[str], wanted: set[str]) -> None:
    """Raise DataError, naming some, if the archive doesn't hold exactly the files that it should."""
    problems = [f"lacks {_some(wanted - found)}"] if wanted - found else []
    problems += [f"holds {_some(found - wanted)}, unknown there"] if found - wanted else []
    if problems:
        raise DataError(f"{archive} isn't what the development kit says: it {' and '.join(problems)}.")


def _some(names: set[str]) -> str:
    first = ", ".join(printable(name) for name in sorted(names)[:3])
    return f"{first} and {len(names) - 3:,} more files" if len(names) > 3 else first
