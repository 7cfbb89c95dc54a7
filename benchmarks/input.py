"""How fast is the input pipeline? Ours against DALI's own file reader and against a torchvision DataLoader.

    python benchmarks/input.py [--json] [--repeats 5] [--threads 2]

All three read the same JPEGs of ImageNet's size (500x375 and the like, about 110 kB, 4:2:0), which are made for the
occasion and lie in the page cache, crop them at random, resize them to 224 by a linear filter, mirror half of them
and give out uint8 NHWC batches of 64 in host memory. Rounds are interleaved: each ratio compares runs of one round.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, count, islice, repeat
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import document, print_document, ratio_of_rates
from nvidia.dali import Pipeline, fn, types
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from orchestrator.data.batch import SampleRequest
from orchestrator.data.index import build_manifest
from orchestrator.data.loader import open_loader
from orchestrator.data.manifest import Manifest
from orchestrator.data.order import epoch_order
from orchestrator.data.transforms import TrainTransform

NUM_IMAGES = 512
NUM_CLASSES = 8
BATCH_SIZE = 64
WARMUP_BATCHES = 4
IMAGE_SIZE = 224
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
SIZES = ((500, 375), (375, 500), (500, 333), (500, 375))
JPEG_QUALITY = 93  # makes files of about 110 kB


def photograph(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """Noise with the spectrum of natural images (amplitude falling with frequency), sharper in grey than in colour."""
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequencies[0, 0] = 1

    def field(exponent: float) -> npt.NDArray[np.float64]:
        phases = generator.normal(size=(2, *frequencies.shape))
        noise = np.fft.irfft2((phases[0] + 1j * phases[1]) / frequencies**exponent, s=(height, width))
        scaled: npt.NDArray[np.float64] = noise / noise.std()
        return scaled

    grey = field(1.2)
    pixels = np.stack([128 + 50 * (grey + 0.6 * field(1.6)) + generator.normal(0, 6, grey.shape) for _ in range(3)], -1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_photographs(root: Path) -> float:
    """Write the images as ROOT/train/CLASS/NUMBER.jpg; returns their mean size in bytes."""
    generator = np.random.default_rng(0)
    num_bytes = []
    for number in range(NUM_IMAGES):
        path = root / "train" / str(number % NUM_CLASSES) / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(generator, *SIZES[number % len(SIZES)]).save(path, quality=JPEG_QUALITY, subsampling="4:2:0")
        num_bytes.append(path.stat().st_size)
    return float(np.mean(num_bytes))


def images_per_s(batches: Iterator[Any], num_batches: int) -> float:
    """The rate at which batches come once the pipeline is full."""
    for _ in islice(batches, WARMUP_BATCHES):
        pass
    start = perf_counter()
    for _ in islice(batches, num_batches):
        pass
    return num_batches * BATCH_SIZE / (perf_counter() - start)


def endless_requests() -> Iterator[SampleRequest]:
    """Batches of one epoch after the other, in the order that a run would have."""
    for epoch in count():
        order = epoch_order(seed=0, epoch=epoch, num_samples=NUM_IMAGES)
        for start in range(0, NUM_IMAGES, BATCH_SIZE):
            yield SampleRequest(epoch=epoch, indices=order[start : start + BATCH_SIZE])


def our_rate(kind: str, manifest: Manifest, num_threads: int, num_batches: int) -> float:
    """One of our loaders."""
    transform = TrainTransform(
        image_size=IMAGE_SIZE, crop="torchvision", scale=SCALE, ratio=RATIO, interpolation="bilinear"
    )
    with open_loader(
        kind,
        manifest,
        transform,
        seed=0,
        requests=endless_requests(),
        max_batch_size=BATCH_SIZE,
        device="cpu",
        num_threads=num_threads,
    ) as loader:
        return images_per_s(loader, num_batches)


def dali_reader_rate(root: Path, num_threads: int, num_batches: int) -> float:
    """DALI as its documentation uses it: its own reader, shuffling, and its own random crop."""
    pipeline = Pipeline(batch_size=BATCH_SIZE, num_threads=num_threads, device_id=None, prefetch_queue_depth=2, seed=0)
    with pipeline:
        encoded, labels = fn.readers.file(file_root=str(root / "train"), random_shuffle=True)
        images = fn.decoders.image_random_crop(
            encoded, device="cpu", output_type=types.RGB, random_area=SCALE, random_aspect_ratio=RATIO
        )
        images = fn.resize(images, size=[IMAGE_SIZE, IMAGE_SIZE], interp_type=types.INTERP_LINEAR)
        pipeline.set_outputs(fn.flip(images, horizontal=fn.random.coin_flip()), labels)
    pipeline.build()
    return images_per_s((pipeline.run() for _ in repeat(None)), num_batches)


def torchvision_rate(root: Path, num_workers: int, num_batches: int) -> float:
    """ImageFolder and a DataLoader with as many workers as the others have threads."""
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(IMAGE_SIZE, scale=SCALE, ratio=RATIO, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ]
    )
    folder = ImageFolder(str(root / "train"), transform)
    num_epochs = -(-(num_batches + WARMUP_BATCHES) * BATCH_SIZE // NUM_IMAGES)
    loader = DataLoader(ConcatDataset([folder] * num_epochs), BATCH_SIZE, shuffle=True, num_workers=num_workers)
    return images_per_s(iter(loader), num_batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--batches", type=int, default=40, help="batches measured in a round, of 64 images each")
    parser.add_argument("--threads", type=int, default=2, help="threads, or worker processes, of each pipeline")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        mean_bytes = write_photographs(root)
        manifest = build_manifest(root, "train")
        pipelines: dict[str, Callable[[int, int], float]] = {
            "dnctl dali": partial(our_rate, "dali", manifest),
            "dali_reader": partial(dali_reader_rate, root),
            "torchvision": partial(torchvision_rate, root),
            "dnctl pytorch": partial(our_rate, "pytorch", manifest),
        }
        rates: dict[str, list[float]] = {name: [] for name in pipelines}
        for name, rate in chain.from_iterable(repeat(tuple(pipelines.items()), arguments.repeats)):
            rates[name].append(rate(arguments.threads, arguments.batches))
    rows = [
        {"pipeline": name, "images_per_s": median(measured), "lowest": min(measured), "highest": max(measured)}
        | {"threads": arguments.threads, "image_bytes": round(mean_bytes)}
        for name, measured in rates.items()
    ]
    ratios = {peer: ratio_of_rates(rates["dnctl dali"], rates[peer]) for peer in ("dali_reader", "torchvision")}
    print_document(document(rows=rows, ratios=ratios), as_json=arguments.json)


if __name__ == "__main__":
    main()
