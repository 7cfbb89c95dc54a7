"""Ten crops: torchvision's Resize and TenCrop from both loaders, outputs summed, counts exact however ranks share."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.transforms import v2
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.data.index import build_manifest
from orchestrator.data.loader import open_loader
from orchestrator.data.manifest import Manifest
from orchestrator.data.resize import resize
from orchestrator.data.transforms import EvalTransform
from orchestrator.errors import DataError
from orchestrator.models import create_model
from orchestrator.train.evaluate import evaluate
from orchestrator.train.images import Normalize
from orchestrator.train.requests import evaluation_requests
from orchestrator.train.world import World
from tests.photographs import write_photographs

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NUM_IMAGES = 7
SIDE, CROP = 59, 40  # margins are odd, so that centres are rounded
TEN_CROPS = EvalTransform(resize=SIDE, crop=CROP, interpolation="bicubic", crops=10)
KINDS = [
    pytest.param(
        "dali", marks=pytest.mark.skipif(importlib.util.find_spec("nvidia") is None, reason="DALI isn't installed")
    ),
    "pytorch",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"), num_images=NUM_IMAGES, splits=("train", "val"))


@pytest.fixture(scope="module")
def photographs(root: Path) -> Manifest:
    return build_manifest(root, "val")


class OneOf(World):
    """One of several ranks whose counts the test adds up by itself."""

    def all_reduce_sum(self, tensor):
        return tensor


def views(kind, manifest, transform=TEN_CROPS, *, world=None, batch_size=3):
    requests = evaluation_requests(np.arange(manifest.num_samples), world or World.single(), batch_size=batch_size)
    return open_loader(
        kind, manifest, transform, seed=0, requests=requests, max_batch_size=batch_size, device="cpu", num_threads=2
    )


def ten_crops_of(path):
    """torchvision's TenCrop of an image resized by the loaders' own kernel: uint8[10, side, side, 3]."""
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.asarray(image.convert("RGB")).copy())
    height, width, _ = pixels.shape
    short = min(width, height)
    resized = resize(pixels, int(SIDE * width / short), int(SIDE * height / short), "bicubic")
    return torch.stack(v2.TenCrop(CROP)(resized.permute(2, 0, 1))).permute(0, 2, 3, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_ten_views_are_torchvision_s_to_the_bit(kind, photographs):
    with views(kind, photographs) as loader:
        for batch in loader:
            assert batch.images.shape == (10 * len(batch.labels), CROP, CROP, 3)
            for number, index in enumerate(batch.indices):
                expected = ten_crops_of(photographs.path(int(index)))
                assert torch.equal(batch.images[10 * number : 10 * (number + 1)], expected)


def test_the_ten_views_are_those_of_torchvision_on_pil_images_but_for_rounding(photographs):
    """PIL's and torch's cubic filters differ by 1 of 255, by 2 in one value of a million."""
    theirs = v2.Compose([v2.Resize(SIDE, v2.InterpolationMode.BICUBIC), v2.TenCrop(CROP)])
    with views("pytorch", photographs) as loader:
        for batch in loader:
            for number, index in enumerate(batch.indices):
                with Image.open(photographs.path(int(index))) as image:
                    expected = np.stack([np.asarray(crop) for crop in theirs(image.convert("RGB"))])
                ours = batch.images[10 * number : 10 * (number + 1)].numpy()
                assert np.abs(ours.astype(int) - expected.astype(int)).max() <= 2


class Logits(nn.Module):
    """Outputs that differ from crop to crop by more than a softmax keeps in order."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3 * CROP**2, 6, generator=torch.Generator().manual_seed(0)))

    def forward(self, images):
        return images.flatten(1) @ self.weight


NORMALIZE = Normalize(mean=(0.5,) * 3, std=(0.1,) * 3, device=torch.device("cpu"), channels_last=False)


def accuracy_of(model, loader, world=None):
    with loader:
        return evaluate(model, loader, normalize=NORMALIZE, autocast_dtype=None, world=world or World.single())


def test_outputs_are_summed_before_the_softmax(photographs):
    model = Logits()
    outputs = [model(NORMALIZE(ten_crops_of(photographs.path(index)))).detach() for index in range(NUM_IMAGES)]
    of_sums = [int(each.sum(0).argmax()) for each in outputs]
    of_softmaxes = [int(each.softmax(1).sum(0).argmax()) for each in outputs]
    assert of_sums != of_softmaxes
    labels = np.array(of_sums)  # so that everything is right, if outputs are summed before the softmax
    relabelled = Relabelled(photographs, labels)
    assert accuracy_of(model, views("pytorch", relabelled)).correct1 == NUM_IMAGES


class Relabelled:
    """A manifest with other labels."""

    def __init__(self, manifest, labels) -> None:
        self._manifest = manifest
        self.labels = labels

    def __getattr__(self, name):
        return getattr(self._manifest, name)


@pytest.mark.parametrize("size", [2, 3, 5, 11])
def test_counts_are_exact_over_uneven_ranks(size, photographs):
    whole = accuracy_of(Logits(), views("pytorch", photographs, batch_size=NUM_IMAGES))
    parts = []
    for rank in range(size):
        world = OneOf(rank=rank, size=size, device=torch.device("cpu"))
        parts.append(accuracy_of(Logits(), views("pytorch", photographs, world=world, batch_size=2), world))
    assert sum(part.num_images for part in parts) == whole.num_images == NUM_IMAGES
    assert sum(part.correct1 for part in parts) == whole.correct1
    assert sum(part.correct5 for part in parts) == whole.correct5


def test_images_too_small_for_ten_crops_are_refused(photographs):
    for short_side, said in (
        (None, "333x500 pixels, too small for ten crops of 400"),
        (300, "short side resized to 3"),
    ):
        transform = EvalTransform(resize=short_side, crop=400, interpolation="bicubic", crops=10)
        with pytest.raises(DataError, match=said):
            views("pytorch", photographs, transform)


def _eval(*arguments: str) -> dict:
    result = CliRunner().invoke(app, ["eval", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.slow
def test_eval_counts_the_same_from_both_loaders_and_with_our_names_timm_s_and_torchvision_s_old_ones(root, tmp_path):
    ours = create_model("densenet121", num_classes=2, seed=3)
    save_file(ours.state_dict(), tmp_path / "ours.safetensors")
    old_names = {
        name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): tensor
        for name, tensor in ours.state_dict().items()
    }
    assert old_names.keys() != ours.state_dict().keys()
    torch.save(old_names, tmp_path / "torchvision.pth")
    arguments = ("--data", str(root), "--crops", "10", "--batch-size", "30")
    documents = [
        _eval("densenet121", "--weights", str(tmp_path / "ours.safetensors"), "--loader", "pytorch", *arguments),
        _eval("timm:densenet121", "--weights", str(tmp_path / "torchvision.pth"), *arguments),
    ]
    for document in documents:
        assert (document["crops"], document["num_images"]) == (10, NUM_IMAGES)
    assert documents[0]["correct1"] == documents[1]["correct1"]
    assert documents[0]["loss"] == pytest.approx(documents[1]["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("timm:resnet18", "--crops", "5"), "must be 1 or 10"),
        (("timm:resnet18", "--loader", "pil"), "must be dali or pytorch"),
        (("some-run", "--recipe", "demo"), "--recipe goes with a model"),
        (("timm:resnet18", "--best"), "--best goes with a run"),
    ],
)
def test_what_eval_can_not_do_is_said(root, arguments, said):
    result = CliRunner().invoke(app, ["eval", *arguments, "--data", str(root)])
    assert said in str(result.exception)
    assert result.exception.exit_code == 2
