"""Both loaders evaluate the same function: same images, same crops, same pixels, from any point on."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from orchestrator.data.batch import SampleRequest
from orchestrator.data.color import ColorTransform
from orchestrator.data.draws import padded_windows
from orchestrator.data.index import build_manifest
from orchestrator.data.loader import available_loader, open_loader
from orchestrator.data.manifest import Manifest
from orchestrator.data.order import epoch_order
from orchestrator.data.transforms import EvalTransform, TrainTransform
from orchestrator.errors import DataError
from orchestrator.train.images import Normalize
from tests.cut_out import CutOut
from tests.odd_images import write_odd_images
from tests.photographs import photograph, write_photographs

NUM_IMAGES = 26  # batches of 8 leave a short last one
BATCH_SIZE = 8
SEED = 11

needs_dali = pytest.mark.skipif(available_loader() != "dali", reason="NVIDIA DALI isn't installed here")
KINDS = [pytest.param("dali", marks=needs_dali), "pytorch"]
INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
TOLERANCES = {"bilinear": 1, "bicubic": 3}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = write_photographs(tmp_path_factory.mktemp("photographs"), num_images=NUM_IMAGES)
    return build_manifest(root, "train")


def train_transform(interpolation="bilinear", crop="torch"):
    return TrainTransform(image_size=224, crop=crop, interpolation=interpolation)


def requests_of(*epochs, num_samples=NUM_IMAGES):
    for epoch in epochs:
        order = epoch_order(seed=SEED, epoch=epoch, num_samples=num_samples)
        for start in range(0, num_samples, BATCH_SIZE):
            yield SampleRequest(epoch=epoch, indices=order[start : start + BATCH_SIZE])


def opened(kind, manifest, transform, requests, *, num_threads=2, prefetch=2):
    return open_loader(
        kind,
        manifest,
        transform,
        seed=SEED,
        requests=iter(requests),
        max_batch_size=128,
        device="cpu",
        num_threads=num_threads,
        prefetch=prefetch,
    )


def batches_of(kind, manifest, transform, requests, **options):
    with opened(kind, manifest, transform, requests, **options) as loader:
        return list(loader)


def assert_same_batches(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.epoch == other.epoch
        np.testing.assert_array_equal(batch.indices, other.indices)
        assert torch.equal(batch.labels, other.labels)
        assert torch.equal(batch.images, other.images)


@needs_dali
@pytest.mark.parametrize("interpolation", TOLERANCES)
@pytest.mark.parametrize("crop", ["torch", "torchvision"])
def test_loaders_agree_to_the_bit_in_every_epoch(photographs, interpolation, crop):
    transform = train_transform(interpolation, crop)
    of_dali = batches_of("dali", photographs, transform, requests_of(0, 1, 2))
    assert_same_batches(of_dali, batches_of("pytorch", photographs, transform, requests_of(0, 1, 2)))
    assert [len(batch.labels) for batch in of_dali] == [8, 8, 8, 2] * 3


@needs_dali
@pytest.mark.parametrize("interpolation", TOLERANCES)
def test_loaders_agree_to_the_bit_in_evaluation(photographs, interpolation):
    transform = EvalTransform(resize=256, crop=224, interpolation=interpolation)
    of_dali = batches_of("dali", photographs, transform, requests_of(0))
    assert_same_batches(of_dali, batches_of("pytorch", photographs, transform, requests_of(0)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interpolation", TOLERANCES)
def test_training_images_are_what_pil_makes_of_them(photographs, kind, interpolation):
    transform = train_transform(interpolation)
    for batch in batches_of(kind, photographs, transform, requests_of(0, 1)):
        geometry = transform.geometry(photographs, batch.indices, seed=SEED, epoch=batch.epoch)
        for row, index in enumerate(batch.indices):
            with Image.open(photographs.path(index)) as image:
                x, y, w, h = geometry.boxes[row].tolist()
                box = image.convert("RGB").crop((x, y, x + w, y + h))
            expected = np.asarray(box.resize((224, 224), INTERPOLATIONS[interpolation]))
            expected = expected[:, ::-1] if geometry.mirrored[row] else expected
            assert largest_difference(batch.images[row], expected) <= TOLERANCES[interpolation]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interpolation", TOLERANCES)
def test_evaluation_images_are_what_torchvision_makes_of_them(photographs, kind, interpolation):
    theirs = v2.Compose([v2.Resize(256, v2.InterpolationMode(interpolation)), v2.CenterCrop(224)])
    transform = EvalTransform(resize=256, crop=224, interpolation=interpolation)
    for batch in batches_of(kind, photographs, transform, requests_of(0)):
        for image, index in zip(batch.images, batch.indices, strict=True):
            with Image.open(photographs.path(index)) as source:
                expected = np.asarray(theirs(source.convert("RGB")))
            assert largest_difference(image, expected) <= TOLERANCES[interpolation]


def largest_difference(image, expected):
    return np.abs(image.numpy().astype(int) - expected.astype(int)).max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [1, 7, 64, 224, 333])
def test_decoded_pixels_equal_those_of_pil_to_the_bit(photographs, kind, side):
    generator = np.random.default_rng(side)
    x = [generator.integers(0, width - side + 1) for width in photographs.widths]
    y = [generator.integers(0, height - side + 1) for height in photographs.heights]
    boxes = np.stack([x, y, np.full(NUM_IMAGES, side), np.full(NUM_IMAGES, side)], axis=1)
    request = SampleRequest(epoch=0, indices=np.arange(NUM_IMAGES))
    (batch,) = batches_of(kind, photographs, CutOut(boxes, side), [request])
    for index, (x, y, w, h) in enumerate(boxes.tolist()):
        with Image.open(photographs.path(index)) as image:
            expected = np.asarray(image.convert("RGB").crop((x, y, x + w, y + h)))
        np.testing.assert_array_equal(batch.images[index], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_restart_in_the_middle_of_an_epoch_goes_on_with_the_same_batches(photographs, kind):
    transform = train_transform()
    all_batches = batches_of(kind, photographs, transform, requests_of(0, 1))
    rest = list(requests_of(0, 1))[6:]
    assert_same_batches(batches_of(kind, photographs, transform, rest, num_threads=1, prefetch=1), all_batches[6:])


@pytest.mark.parametrize("kind", KINDS)
def test_images_do_not_depend_on_the_batch_that_they_come_in(photographs, kind):
    transform = train_transform()
    indices = np.arange(NUM_IMAGES)
    (together,) = batches_of(kind, photographs, transform, [SampleRequest(epoch=5, indices=indices)])
    alone = batches_of(kind, photographs, transform, [SampleRequest(epoch=5, indices=indices[[i]]) for i in indices])
    assert torch.equal(together.images, torch.cat([batch.images for batch in alone]))
    assert torch.equal(together.labels, torch.from_numpy(np.array(photographs.labels)))


@pytest.mark.parametrize("kind", KINDS)
def test_batches_stay_as_they_are_while_they_are_held(photographs, kind):
    with opened(kind, photographs, train_transform(), requests_of(0, 1)) as loader:
        held = [(batch, batch.images.clone()) for batch in loader]
    assert all(torch.equal(batch.images, copy) for batch, copy in held)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefetch", [1, 2, 4])
def test_requests_are_taken_at_most_prefetch_and_one_ahead(photographs, kind, prefetch):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield SampleRequest(epoch=0, indices=np.arange(4))

    with opened(kind, photographs, train_transform(), endless(), prefetch=prefetch) as loader:
        assert taken == []
        for num_given in range(1, 6):
            next(loader)
            assert len(taken) <= num_given + prefetch + 1


@pytest.mark.parametrize("kind", KINDS)
def test_requests_may_be_empty(photographs, kind):
    sizes = [0, 3, 0, 0, 2, 0]
    requests = [SampleRequest(epoch=0, indices=np.arange(size)) for size in sizes]
    batches = batches_of(kind, photographs, train_transform(), requests)
    assert [batch.images.shape for batch in batches] == [(size, 224, 224, 3) for size in sizes]
    assert [len(batch.labels) for batch in batches] == sizes
    assert batches_of(kind, photographs, train_transform(), []) == []


@pytest.mark.parametrize("kind", KINDS)
def test_closing_twice_and_early_is_fine(photographs, kind):
    loader = opened(kind, photographs, train_transform(), requests_of(0, 1, 2))
    next(loader)
    loader.close()
    loader.close()


@pytest.fixture(scope="module")
def odd_images(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("odd images")
    write_odd_images(root / "train" / "odd")
    return build_manifest(root, "train", full_decode=True)


@needs_dali
@pytest.mark.parametrize(
    "transform",
    [
        train_transform("bilinear"),
        train_transform("bicubic", "torchvision"),
        EvalTransform(resize=256, crop=224, interpolation="bilinear"),
        EvalTransform(resize=32, crop=32, interpolation="bicubic"),
    ],
)
def test_odd_images_give_the_same_pixels_from_both_loaders(odd_images, transform):
    requests = [SampleRequest(epoch=epoch, indices=np.arange(odd_images.num_samples)) for epoch in range(3)]
    assert_same_batches(
        batches_of("dali", odd_images, transform, requests), batches_of("pytorch", odd_images, transform, requests)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_orientation_tags_are_ignored(odd_images, kind):
    paths = odd_images.paths(np.arange(odd_images.num_samples))
    (turned,) = (index for index, path in enumerate(paths) if path.endswith("jpeg, turned 6.JPEG"))
    boxes = np.tile([0, 0, 47, 47], (odd_images.num_samples, 1))
    request = SampleRequest(epoch=0, indices=np.array([turned]))
    (batch,) = batches_of(kind, odd_images, CutOut(boxes, 47), [request])
    with Image.open(paths[turned]) as image:
        np.testing.assert_array_equal(batch.images[0], np.asarray(image)[:, :47])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def replace_by_another(path: Path) -> None:
    photograph(9, 100, 80).save(path, format="JPEG")


def replace_by_text_as_long(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", [truncate, replace_by_another, replace_by_text_as_long, Path.unlink])
def test_images_that_break_during_a_run_fail_it_by_name(tmp_path, kind, damage):
    manifest = build_manifest(write_photographs(tmp_path, num_images=6), "train")
    damage(Path(manifest.path(4)))
    requests = [SampleRequest(epoch=0, indices=np.arange(3)), SampleRequest(epoch=0, indices=np.arange(3, 6))]
    with opened(kind, manifest, train_transform(), requests) as loader:
        assert len(next(loader).labels) == 3
        with pytest.raises(DataError) as caught:
            next(loader)
    assert str(caught.value).startswith(manifest.path(4))
    assert "dnctl data index" in str(caught.value)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """PNGs of given sizes, which decode to exactly what was written."""

    manifest: Manifest
    pixels: list[np.ndarray]


def write_pictures(root: Path, sizes) -> Pictures:
    folder = root / "train" / "a"
    folder.mkdir(parents=True)
    for number, size in enumerate(sizes):
        photograph(number, *size).save(folder / f"{number:02d}.png")
    manifest = build_manifest(root, "train")
    return Pictures(manifest=manifest, pixels=[np.asarray(photograph(n, *size)) for n, size in enumerate(sizes)])


@pytest.mark.parametrize("kind", KINDS)
def test_padded_crops_are_cut_as_torchvision_cuts_them(tmp_path, kind):
    pictures = write_pictures(tmp_path, [(32, 32)] * 6 + [(40, 27)])
    transform = TrainTransform(image_size=32, crop="pad", padding=4, interpolation="bilinear", fill=(125, 123, 114))
    seen = set()
    for batch in batches_of(kind, pictures.manifest, transform, requests_of(0, 1, 2, 3, num_samples=7)):
        geometry = transform.geometry(pictures.manifest, batch.indices, seed=SEED, epoch=batch.epoch)
        for row, index in enumerate(batch.indices):
            left, top = geometry.window_origins[row].tolist()
            seen.add((left, top))
            padded = v2.functional.pad(Image.fromarray(pictures.pixels[index]), [4], fill=(125, 123, 114))
            expected = np.asarray(padded.crop((left + 4, top + 4, left + 36, top + 36)))
            expected = expected[:, ::-1] if geometry.mirrored[row] else expected
            np.testing.assert_array_equal(batch.images[row], expected)
    assert len(seen) > 15


def test_padded_crops_take_every_position_equally_often():
    n = 81 * 400
    origins = padded_windows(
        seed=0, epoch=0, indices=np.arange(n), widths=np.full(n, 32), heights=np.full(n, 32), padding=4, side=32
    )
    _, counts = np.unique(origins, axis=0, return_counts=True)
    assert origins.min() == -4
    assert origins.max() == 4
    assert len(counts) == 81
    assert counts == pytest.approx(400, abs=100)


@pytest.mark.parametrize("kind", KINDS)
def test_images_too_small_for_a_padded_crop_are_refused_by_name(tmp_path, kind):
    pictures = write_pictures(tmp_path, [(32, 32), (30, 23)])
    transform = TrainTransform(image_size=32, crop="pad", padding=4, interpolation="bilinear")
    with pytest.raises(
        DataError, match=r"01.png is 30x23 pixels, too small to cut 32x32 out of it with a padding of 4"
    ):
        opened(kind, pictures.manifest, transform, [])


ODD_SIZES = [
    (500, 333),
    (333, 500),
    (31, 90),
    (90, 31),
    (7, 5),
    (1, 40),
    (40, 1),
    (64, 64),
    (65, 64),
    (64, 67),
    (63, 81),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interpolation", TOLERANCES)
@pytest.mark.parametrize(("resize", "crop"), [(64, 56), (64, 64), (40, 57), (64, 71), (None, 56), (None, 33)])
def test_evaluation_of_odd_sizes_is_torchvisions(tmp_path, kind, interpolation, resize, crop):
    pictures = write_pictures(tmp_path, ODD_SIZES)
    resizing = [v2.Resize(resize, v2.InterpolationMode(interpolation))] if resize else []
    theirs = v2.Compose([*resizing, v2.CenterCrop(crop)])
    transform = EvalTransform(resize=resize, crop=crop, interpolation=interpolation)
    (batch,) = batches_of(
        kind, pictures.manifest, transform, [SampleRequest(epoch=0, indices=np.arange(len(ODD_SIZES)))]
    )
    for image, pixels in zip(batch.images, pictures.pixels, strict=True):
        expected = np.asarray(theirs(Image.fromarray(pixels)))
        assert largest_difference(image, expected) <= (TOLERANCES[interpolation] if resize else 0)


@needs_dali
def test_loaders_hand_over_the_same_colors(photographs):
    transform = replace(train_transform(), color=ColorTransform(jitter=0.4, lighting=0.1))
    normalize = Normalize(mean=(0.5,) * 3, std=(0.25,) * 3, device=torch.device("cpu"), channels_last=False)
    of_dali, of_pytorch = (batches_of(kind, photographs, transform, requests_of(3)) for kind in ("dali", "pytorch"))
    for batch, other in zip(of_dali, of_pytorch, strict=True):
        assert torch.equal(normalize(batch.images, batch.color), normalize(other.images, other.color))
        assert not torch.allclose(normalize(batch.images, batch.color), normalize(batch.images), atol=0.1)
