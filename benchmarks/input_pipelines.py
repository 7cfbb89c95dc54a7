"""The input pipelines that benchmarks/input.py compares: ours, DALI's readers, torchvision's and webdataset's loaders.

Each is an endless iterator of batches of BATCH_SIZE images of IMAGE_SIZE pixels, decoded, cropped at random, resized by
a linear filter and mirrored. The plain ones give uint8; those with colours jitter, light, normalise and give float32.
"""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import torch
import webdataset
from nvidia.dali import Pipeline, fn, types
from torch.utils.data import ConcatDataset, DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from orchestrator.data.batch import SampleRequest
from orchestrator.data.color import EIGENVALUES, EIGENVECTORS, ColorTransform
from orchestrator.data.loader import open_loader
from orchestrator.data.manifest import Manifest
from orchestrator.data.order import epoch_order
from orchestrator.data.staging import ShardCache
from orchestrator.data.transforms import TrainTransform
from orchestrator.train.images import Normalize

BATCH_SIZE = 64
IMAGE_SIZE = 224
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
JITTER, LIGHTING = 0.4, 0.1

Pipe = Callable[[int], Iterator[Any]]
"""Given a number of threads or worker processes."""


def dnctl(kind: str, manifest: Manifest, *, colors: bool = False, cache: ShardCache | None = None) -> Pipe:
    """One of our loaders; with colours, what normalises its batches besides."""

    def requests() -> Iterator[SampleRequest]:
        for epoch in count():
            order = epoch_order(seed=0, epoch=epoch, num_samples=manifest.num_samples)
            for start in range(0, manifest.num_samples, BATCH_SIZE):
                yield SampleRequest(epoch=epoch, indices=order[start : start + BATCH_SIZE])

    def batches(num_threads: int) -> Iterator[Any]:
        transform = TrainTransform(
            image_size=IMAGE_SIZE,
            crop="torchvision",
            scale=SCALE,
            ratio=RATIO,
            interpolation="bilinear",
            color=ColorTransform(jitter=JITTER, lighting=LIGHTING) if colors else None,
        )
        normalize = Normalize(mean=MEAN, std=STD, device=torch.device("cpu"), channels_last=False)
        with open_loader(
            kind,
            manifest,
            transform,
            seed=0,
            requests=requests(),
            max_batch_size=BATCH_SIZE,
            device="cpu",
            num_threads=num_threads,
            prefetch=4 if "://" in str(manifest.root) else 2,
            cache=cache,
        ) as loader:
            for batch in loader:
                yield normalize(batch.images, batch.color) if colors else batch.images

    return batches


def dali_files(root: Path) -> Pipe:
    """DALI as its documentation uses it: its own reader, shuffling, and its own random crop."""
    return _dali(lambda: fn.readers.file(file_root=str(root / "train"), random_shuffle=True)[0])


def dali_webdataset(shards: list[str]) -> Pipe:
    """The same with its reader of WebDataset shards."""
    return _dali(
        lambda: fn.readers.webdataset(
            paths=shards, ext=["jpg", "cls"], random_shuffle=True, missing_component_behavior="error"
        )[0]
    )


def _dali(read: Callable[[], Any]) -> Pipe:
    def batches(num_threads: int) -> Iterator[Any]:
        pipeline = Pipeline(
            batch_size=BATCH_SIZE, num_threads=num_threads, device_id=None, prefetch_queue_depth=2, seed=0
        )
        with pipeline:
            images = fn.decoders.image_random_crop(
                read(), device="cpu", output_type=types.RGB, random_area=SCALE, random_aspect_ratio=RATIO
            )
            images = fn.resize(images, size=[IMAGE_SIZE, IMAGE_SIZE], interp_type=types.INTERP_LINEAR)
            pipeline.set_outputs(fn.flip(images, horizontal=fn.random.coin_flip()))
        pipeline.build()
        while True:
            yield pipeline.run()

    return batches


def torchvision(root: Path, *, colors: bool = False) -> Pipe:
    """ImageFolder and a DataLoader with as many workers as the others have threads."""

    def batches(num_workers: int) -> Iterator[Any]:
        folder = ImageFolder(str(root / "train"), transform_of(colors=colors))
        endless = ConcatDataset([folder] * 1000)
        return iter(
            DataLoader(endless, BATCH_SIZE, shuffle=False, sampler=_Shuffled(len(folder)), num_workers=num_workers)
        )

    return batches


class _Shuffled(torch.utils.data.Sampler[int]):
    """One shuffled epoch after the other."""

    def __init__(self, num_samples: int) -> None:
        self._num_samples = num_samples

    def __iter__(self) -> Iterator[int]:
        for _ in range(1000):
            yield from torch.randperm(self._num_samples).tolist()


def webdataset_loader(shards: list[str], *, colors: bool = False) -> Pipe:
    """webdataset's pipeline and loader, with torchvision's transforms."""

    def batches(num_workers: int) -> Iterator[Any]:
        dataset = (
            webdataset.WebDataset(shards, resampled=True, shardshuffle=False)
            .shuffle(500)
            .decode("pil")
            .to_tuple("jpg", "cls")
            .map_tuple(transform_of(colors=colors), int)
            .batched(BATCH_SIZE)
        )
        return iter(webdataset.WebLoader(dataset, batch_size=None, num_workers=num_workers))

    return batches


def transform_of(*, colors: bool) -> v2.Compose:
    """torchvision's transforms; colour jitter on PIL images, where it is fastest."""
    geometry = [v2.RandomResizedCrop(IMAGE_SIZE, scale=SCALE, ratio=RATIO, antialias=True), v2.RandomHorizontalFlip()]
    if not colors:
        return v2.Compose([*geometry, v2.PILToTensor()])
    jitter = v2.ColorJitter(brightness=JITTER, contrast=JITTER, saturation=JITTER)
    to_float = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    return v2.Compose([*geometry, jitter, *to_float, Lighting(), v2.Normalize(MEAN, STD)])


class Lighting(torch.nn.Module):
    """The lighting noise, which torchvision lacks, as others write it."""

    def __init__(self) -> None:
        super().__init__()
        self._components = torch.tensor(EIGENVECTORS * EIGENVALUES, dtype=torch.float32)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Light an image, float32[3, h, w]."""
        return image + (self._components @ (torch.randn(3) * LIGHTING))[:, None, None]
