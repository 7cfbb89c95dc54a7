"""Every image is read to the picture that PIL's convert("RGB") makes of it, or refused by name."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.data.batch import SampleRequest
from orchestrator.data.index import build_manifest
from orchestrator.data.loader import available_loader, open_loader
from orchestrator.data.manifest import Manifest
from orchestrator.errors import DataError
from tests.cut_out import CutOut
from tests.odd_images import refused, write_odd_images

needs_dali = pytest.mark.skipif(available_loader() != "dali", reason="NVIDIA DALI isn't installed here")
KINDS = [pytest.param("dali", marks=needs_dali), "pytorch"]


@pytest.fixture(scope="module")
def odd_images(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("odd images")
    write_odd_images(root / "train" / "odd")
    return build_manifest(root, "train")


def squares(manifest: Manifest, index: int) -> list[tuple[int, int]]:
    """Origins of squares, as large as the short side, that cover an image."""
    width, height = int(manifest.widths[index]), int(manifest.heights[index])
    side = min(width, height)
    along_x = [*range(0, width - side, side), width - side]
    along_y = [*range(0, height - side, side), height - side]
    return [(x, y) for x in along_x for y in along_y]


@pytest.mark.parametrize("kind", KINDS)
def test_every_pixel_of_odd_images_is_pils(odd_images, kind):
    sides = np.minimum(odd_images.widths, odd_images.heights)
    for side in np.unique(sides).tolist():
        indices = np.flatnonzero(sides == side)
        pictures = {int(index): rgb(odd_images.path(int(index))) for index in indices}
        rounds = max(len(squares(odd_images, index)) for index in pictures)
        for number in range(rounds):
            boxes = np.zeros((odd_images.num_samples, 4), dtype=np.int64)
            for index in pictures:
                of_image = squares(odd_images, index)
                boxes[index] = (*of_image[number % len(of_image)], side, side)
            batch = read(kind, odd_images, CutOut(boxes, side), indices)
            for image, index in zip(batch.images, indices, strict=True):
                x, y, w, h = boxes[index].tolist()
                expected = pictures[int(index)][y : y + h, x : x + w]
                assert (image.numpy() == expected).all(), odd_images.path(int(index))


def rgb(path: str) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's about transparency in palettes
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))


def read(kind, manifest, transform, indices):
    with open_loader(
        kind,
        manifest,
        transform,
        seed=0,
        requests=iter([SampleRequest(epoch=0, indices=indices)]),
        max_batch_size=len(indices),
        device="cpu",
        num_threads=2,
    ) as loader:
        return next(loader)


def test_there_are_odd_images_of_every_kind(odd_images):
    names = " ".join(Path(path).name for path in odd_images.paths(np.arange(odd_images.num_samples)))
    for kind in (
        "png",
        "webp",
        "bmp",
        "CMYK",
        "YCCK",
        "palette",
        "progressive",
        "1 bit",
        "LA",
        "turned",
        "jpeg L",
        "1x1",
    ):
        assert kind in names
    assert odd_images.num_samples == len(set(odd_images.relative_paths.to_pylist())) > 70


@pytest.mark.parametrize("full_decode", [False, True])
@pytest.mark.parametrize("name", refused())
def test_images_that_are_not_read_alike_are_refused_by_name(tmp_path, name, full_decode):
    data, said = refused()[name]
    (tmp_path / "train/a").mkdir(parents=True)
    (tmp_path / "train/a/x.JPEG").write_bytes(data)
    with pytest.raises(DataError, match=rf"train/a/x\.JPEG {said}"):
        build_manifest(tmp_path, "train", full_decode=full_decode)
