"""Random crops and mirrors."""

import math
import random

import numpy as np
import pytest

from orchestrator.data.draws import crop_boxes, mirrors

VARIANTS = ("torch", "torchvision")
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
RECORDED = {
    "torch": [[312, 21, 171, 209], [72, 3, 345, 315], [102, 78, 350, 275]],
    "torchvision": [[290, 25, 195, 183], [85, 1, 316, 344], [144, 31, 287, 335]],
}


def boxes_of(variant, indices, width=500, height=375, *, seed=0, epoch=0, scale=SCALE, ratio=RATIO):
    indices = np.asarray(indices, dtype=np.int64)
    return crop_boxes(
        variant=variant,
        seed=seed,
        epoch=epoch,
        indices=indices,
        widths=np.broadcast_to(np.int32(width), indices.shape),
        heights=np.broadcast_to(np.int32(height), indices.shape),
        scale=scale,
        ratio=ratio,
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_crop_boxes_do_not_depend_on_the_batch(variant):
    together = boxes_of(variant, np.arange(1000))
    shuffled = np.random.default_rng(0).permutation(1000)
    np.testing.assert_array_equal(boxes_of(variant, shuffled), together[shuffled])
    np.testing.assert_array_equal(boxes_of(variant, [17]), together[[17]])


@pytest.mark.parametrize("variant", VARIANTS)
def test_crop_boxes_change_with_seed_and_epoch(variant):
    boxes = [boxes_of(variant, np.arange(100), seed=s, epoch=e) for s, e in ((0, 0), (1, 0), (0, 1))]
    assert (boxes[0] != boxes[1]).any(axis=1).mean() > 0.95
    assert (boxes[0] != boxes[2]).any(axis=1).mean() > 0.95


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("width", "height"), [(500, 375), (375, 500), (5, 3), (200, 1), (1, 200), (1, 1), (2, 2), (4000, 30)]
)
def test_crop_boxes_lie_within_the_image(variant, width, height):
    x, y, w, h = boxes_of(variant, np.arange(2000), width, height).T
    assert w.min() >= 1
    assert h.min() >= 1
    assert x.min() >= 0
    assert y.min() >= 0
    assert (x + w).max() <= width
    assert (y + h).max() <= height


def torch_crop(generator, width, height):
    """One random sized crop as facts.md tells it, a try at a time."""
    for _ in range(10):
        area = generator.uniform(*SCALE) * width * height
        r = generator.uniform(*RATIO)
        w, h = math.floor(math.sqrt(area) * r + 0.5), math.floor(math.sqrt(area) / r + 0.5)
        if generator.random() < 0.5:
            w, h = h, w
        if w <= width and h <= height:
            return generator.randint(0, width - w), generator.randint(0, height - h), w, h
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side, side


def test_torch_crops_have_the_distribution_of_the_authors():
    generator = random.Random(0)
    assert_same_quantiles(
        boxes_of("torch", np.arange(40000)), np.array([torch_crop(generator, 500, 375) for _ in range(40000)])
    )


def test_torch_crops_span_the_aspects_of_the_authors():
    _, _, w, h = boxes_of("torch", np.arange(40000), 4000, 4000).T
    assert (w / h).min() == pytest.approx(9 / 16, rel=0.01)  # (3/4)²: width is √area · r, height √area / r
    assert (w / h).max() == pytest.approx(16 / 9, rel=0.01)
    assert (w * h).min() / 4000**2 == pytest.approx(0.08, rel=0.01)


def assert_same_quantiles(ours, theirs):
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        difference = np.quantile(ours, quantile, axis=0) - np.quantile(theirs, quantile, axis=0)
        assert np.abs(difference).max() < 12  # pixels; about four standard errors of 4000 boxes


@pytest.mark.slow
def test_torchvision_crops_have_the_distribution_of_torchvision():
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchvision.transforms.v2")
    torch.manual_seed(0)
    image = torch.empty((3, 375, 500), dtype=torch.uint8)
    crop = transforms.RandomResizedCrop(224, scale=SCALE, ratio=RATIO)
    drawn = [crop.make_params([image]) for _ in range(4000)]
    theirs = np.array([[p["left"], p["top"], p["width"], p["height"]] for p in drawn])
    assert_same_quantiles(boxes_of("torchvision", np.arange(40000)), theirs)


def test_torch_falls_back_to_the_centred_square():
    np.testing.assert_array_equal(boxes_of("torch", [0, 1], 4000, 30), [[1985, 0, 30, 30]] * 2)


def test_torchvision_falls_back_to_the_nearest_allowed_aspect():
    np.testing.assert_array_equal(boxes_of("torchvision", [0], 4000, 30), [[1980, 0, 40, 30]])
    np.testing.assert_array_equal(boxes_of("torchvision", [0], 30, 4000), [[0, 1980, 30, 40]])


def test_the_whole_image_is_drawn_if_only_that_is_asked_for():
    boxes = boxes_of("torchvision", np.arange(50), 300, 300, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    np.testing.assert_array_equal(boxes, [[0, 0, 300, 300]] * 50)


@pytest.mark.parametrize("variant", VARIANTS)
def test_crop_boxes_are_those_recorded(variant):
    np.testing.assert_array_equal(boxes_of(variant, [0, 1, 999_999], seed=2**40 + 1, epoch=89), RECORDED[variant])


def test_no_samples_give_no_boxes():
    assert boxes_of("torch", []).shape == (0, 4)


def test_half_of_the_samples_are_mirrored_and_the_batch_does_not_matter():
    together = mirrors(seed=0, epoch=3, indices=np.arange(20000), probability=0.5)
    assert together.mean() == pytest.approx(0.5, abs=0.02)
    np.testing.assert_array_equal(mirrors(seed=0, epoch=3, indices=np.array([5, 4]), probability=0.5), together[[5, 4]])
    assert (mirrors(seed=0, epoch=4, indices=np.arange(20000), probability=0.5) != together).mean() > 0.4


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0.0), (1.0, 1.0)])
def test_mirroring_can_be_certain(probability, expected):
    assert mirrors(seed=0, epoch=0, indices=np.arange(5000), probability=probability).mean() == expected
