"""Colours change as in the authors' Torch code, whose steps are written out here one by one."""

from itertools import permutations

import numpy as np
import pytest
import torch

from orchestrator.data.color import ColorTransform, draw_color_maps
from orchestrator.philox import Stream, sample_uniforms
from orchestrator.train.images import Normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY = np.array([0.299, 0.587, 0.114])
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
AUTHORS = ColorTransform(jitter=0.4, lighting=0.1)
SEED, EPOCH = 2**40 + 5, 7


def drawn(index, transform):
    """What belongs to a sample: the weights, the order, the three normal numbers."""
    u = sample_uniforms(seed=SEED, stream=Stream.COLOR, epoch=EPOCH, indices=np.array([index]), num_uniforms=10)[0]
    weights = dict(zip(("brightness", "contrast", "saturation"), 1 + transform.jitter * (2 * u[:3] - 1), strict=True))
    order = list(permutations(("brightness", "contrast", "saturation")))[int(u[3] * 6)]
    return weights, order, np.sqrt(-2 * np.log(1 - u[4:7])) * np.cos(2 * np.pi * u[7:]) * transform.lighting


def step_by_step(image, index, transform, *, mirrored=False):
    """Jitter, lighting, normalisation, mirror, in the authors' order, in float64: float64[h, w, 3]."""
    weights, order, alphas = drawn(index, transform)
    x = image / 255.0
    for step in order:
        grey = x @ GREY
        targets = {"brightness": 0.0, "contrast": grey.mean(), "saturation": grey[..., None]}
        x = weights[step] * x + (1 - weights[step]) * targets[step]
    for alpha, value, vector in zip(alphas, EIGENVALUES, np.transpose(EIGENVECTORS), strict=True):
        x = x + alpha * value * vector
    x = (x - MEAN) / STD
    return x[:, ::-1] if mirrored else x


def some_images(count, height=37, width=41):
    return np.random.default_rng(3).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def normalized(images, indices, transform, channels_last=False):
    normalize = Normalize(mean=MEAN, std=STD, device=torch.device("cpu"), channels_last=channels_last)
    maps = draw_color_maps(transform, seed=SEED, epoch=EPOCH, indices=indices)
    return normalize(torch.from_numpy(images), maps).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
def test_colors_are_what_the_authors_steps_make_of_them(channels_last, mirrored):
    indices = np.arange(100, 124)  # all six orders are among these
    images = some_images(len(indices))
    shown = images[:, :, ::-1].copy() if mirrored else images  # a loader mirrors first, the authors last
    results = normalized(shown, indices, AUTHORS, channels_last)
    assert {drawn(index, AUTHORS)[1] for index in indices} == set(
        permutations(("brightness", "contrast", "saturation"))
    )
    for image, index, result in zip(images, indices, results, strict=True):
        expected = step_by_step(image, index, AUTHORS, mirrored=mirrored)
        np.testing.assert_allclose(result * STD * 255, expected * STD * 255, atol=2e-3)  # of 255


def test_colors_depend_on_the_sample_and_not_on_its_batch():
    indices = np.array([8, 3, 5])
    images = some_images(3)
    together = normalized(images, indices, AUTHORS)
    alone = [normalized(images[[row]], indices[[row]], AUTHORS)[0] for row in range(3)]
    np.testing.assert_array_equal(together, np.stack(alone))


def test_without_strength_colors_only_lose_the_mean():
    images = some_images(2)
    unchanged = normalized(images, np.arange(2), ColorTransform(jitter=0.0, lighting=0.0))
    np.testing.assert_allclose(unchanged, (images / 255.0 - MEAN) / STD, atol=1e-5)


def test_other_epochs_and_seeds_draw_other_colors():
    def shifts(seed, epoch):
        return draw_color_maps(AUTHORS, seed=seed, epoch=epoch, indices=np.arange(4)).shift

    assert torch.equal(shifts(0, 0), shifts(0, 0))
    assert not torch.isclose(shifts(0, 0), shifts(0, 1)).any()
    assert not torch.isclose(shifts(0, 0), shifts(1, 0)).any()


def test_draws_have_the_distributions_they_should_have():
    indices = np.arange(20_000)
    lit = draw_color_maps(ColorTransform(jitter=0.0, lighting=0.1), seed=0, epoch=0, indices=indices).shift.numpy()
    weights = lit @ np.array(EIGENVECTORS) / (0.1 * np.array(EIGENVALUES))  # the matrix is orthogonal to 4 digits
    np.testing.assert_allclose(weights.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(weights.std(0), 1, atol=0.03)
    grey = draw_color_maps(ColorTransform(jitter=0.4, lighting=0.0), seed=0, epoch=0, indices=indices)
    gains = (grey.pixel + grey.mean).sum(2).numpy()  # of a grey image all of one value: brightness alone changes it
    assert gains.min() >= 0.6 - 1e-6
    assert gains.max() <= 1.4 + 1e-6
    assert gains.mean() == pytest.approx(1.0, abs=0.01)
    assert gains.std() == pytest.approx(0.8 / np.sqrt(12), abs=0.01)


def test_no_images_stay_none():
    assert normalized(some_images(0), np.arange(0), AUTHORS).shape == (0, 37, 41, 3)
