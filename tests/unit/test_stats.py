"""Statistics of a data set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.data.index import build_manifest, index_dataset
from orchestrator.data.sharding import write_shards
from orchestrator.data.stats import ASPECT_EDGES, SIDE_EDGES, dataset_stats, sizes_of
from orchestrator.errors import DataError

SIZES = [(32, 32), (500, 375), (375, 500), (320, 640), (1, 3000), (64, 64)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for number, (width, height) in enumerate(SIZES):
            folder = tmp_path / "data" / split / f"class{number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            low, high = 20 * number, 100 + 20 * number
            pixels = generator.integers(low, high, (height, width, 3)).astype(np.uint8) // np.uint8([1, 2, 3])
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "data"


def pixels_of(root: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) / 255 for path in sorted((root / "train").rglob("*.png"))]


def test_mean_and_deviation_are_those_of_images_that_weigh_the_same(root):
    found = dataset_stats(root).channels
    images = pixels_of(root)
    mean = np.mean([image.mean(axis=(0, 1)) for image in images], axis=0)
    variance = np.mean([((image - mean) ** 2).mean(axis=(0, 1)) for image in images], axis=0)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(found.std, np.sqrt(variance), rtol=1e-9)
    assert found.num_images == 6


def test_threads_make_no_difference_to_the_bit(root):
    assert dataset_stats(root, num_threads=1) == dataset_stats(root, num_threads=3)


def test_some_images_stand_for_all(root):
    found = dataset_stats(root, max_images=2).channels
    chosen = [pixels_of(root)[index] for index in (0, 3)]  # one of each class
    np.testing.assert_allclose(found.mean, np.mean([image.mean(axis=(0, 1)) for image in chosen], axis=0))
    assert found.num_images == 2
    assert dataset_stats(root, max_images=100).channels.num_images == 6


def test_sizes_are_counted_by_short_side_and_by_aspect(root):
    sizes = sizes_of(build_manifest(root, "train"))
    assert (sizes.smallest, sizes.median, sizes.largest) == ((32, 32), (192.0, 437.5), (320, 640))
    short = dict(zip(SIDE_EDGES, sizes.short_side.counts, strict=False))
    assert {edge: count for edge, count in short.items() if count} == {0: 1, 32: 1, 64: 1, 320: 3}
    aspect = dict(zip(ASPECT_EDGES, sizes.aspect.counts, strict=False))
    assert {edge: count for edge, count in aspect.items() if count} == {0: 1, 1 / 2: 1, 3 / 4: 1, 0.9: 2, 4 / 3: 1}
    assert sizes.mean_bytes == np.mean([path.stat().st_size for path in (root / "train").rglob("*.png")])


def test_damaged_images_are_named(root):
    dataset_stats(root)
    path = root / "train/class0/0.png"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(DataError, match=r"class0/0\.png is no image that can be read"):
        dataset_stats(root)


def test_shards_have_the_statistics_of_their_folder(root, tmp_path):
    write_shards(index_dataset(root), tmp_path / "shards", shard_bytes=10**6, progress=lambda *told: None)
    assert dataset_stats(tmp_path / "shards") == dataset_stats(root)
