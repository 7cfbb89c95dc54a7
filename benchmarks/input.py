"""How fast is the input pipeline? Ours against DALI's own readers, a torchvision DataLoader and webdataset's loader.

    python benchmarks/input.py [--json] [--repeats 5] [--threads 2]

All read the same JPEGs of ImageNet's size (500x375 and the like, about 110 kB, 4:2:0), which are made for the occasion,
as files or from shards, crop them at random, resize them to 224 by a linear filter, mirror half of them and give out
batches of 64 in host memory: uint8, or, with colours, float32 after colour jitter, lighting and normalisation. Files
lie in the page cache, but for the rows called cold. The object store is moto's S3 server, a Python process on the same
cores. Rounds are interleaved: each ratio compares runs of one round.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.fs
import torch
from common import document, print_document, ratio_of_rates
from input_pipelines import BATCH_SIZE, Pipe, dali_files, dali_webdataset, dnctl, torchvision, webdataset_loader
from PIL import Image

from orchestrator.data.index import Dataset, index_dataset
from orchestrator.data.sharding import write_shards
from orchestrator.data.staging import ShardCache

NUM_IMAGES = 512
NUM_CLASSES = 8
WARMUP_BATCHES = 4
SHARD_BYTES = 8_000_000  # makes seven shards, so that the peers' workers have several each
SIZES = ((500, 375), (375, 500), (500, 333), (500, 375))
JPEG_QUALITY = 93  # makes files of about 110 kB
COLD = " (cold)"
RATIOS = {
    "dali_reader": ("dnctl folder", "dali files"),
    "torchvision": ("dnctl folder", "torchvision"),
    "shards/dali_webdataset": ("dnctl shards", "dali webdataset"),
    "shards/webdataset": ("dnctl shards", "webdataset"),
    "shards/folder": ("dnctl shards", "dnctl folder"),
    "colors/torchvision": ("dnctl folder, colors", "torchvision, colors"),
    "cold/torchvision": ("dnctl folder" + COLD, "torchvision" + COLD),
    "cold/shards/folder": ("dnctl shards" + COLD, "dnctl folder" + COLD),
}


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
    """Write the images as ROOT/SPLIT/CLASS/NUMBER.jpg, one a class for validation; returns their mean size in bytes."""
    generator = np.random.default_rng(0)
    num_bytes = []
    for number in range(NUM_IMAGES + NUM_CLASSES):
        split = "train" if number < NUM_IMAGES else "val"
        path = root / split / str(number % NUM_CLASSES) / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(generator, *SIZES[number % len(SIZES)]).save(path, quality=JPEG_QUALITY, subsampling="4:2:0")
        num_bytes.append(path.stat().st_size)
    return float(np.mean(num_bytes))


def images_per_s(pipe: Pipe, num_threads: int, num_batches: int) -> float:
    """The rate at which batches come once the pipeline is full."""
    batches = pipe(num_threads)
    for _ in islice(batches, WARMUP_BATCHES):
        pass
    start = perf_counter()
    for _ in islice(batches, num_batches):
        pass
    rate = num_batches * BATCH_SIZE / (perf_counter() - start)
    if hasattr(batches, "close"):
        batches.close()
    return rate


def forget(folder: Path) -> None:
    """Drop a folder's files from the page cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


@contextmanager
def object_store(shards: Path) -> Iterator[str]:
    """The address of the shards in an S3 server of their own process."""
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:5555",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "5555"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        store = pyarrow.fs.S3FileSystem(scheme="http", endpoint_override="127.0.0.1:5555", allow_bucket_creation=True)
        for _ in range(100):
            try:
                store.create_dir("benchmark")
                break
            except OSError:
                time.sleep(0.1)
        for path in (*shards.glob("*.tar"), *shards.glob("*.arrow")):
            with store.open_output_stream(f"benchmark/{path.name}") as stream:
                stream.write(path.read_bytes())
        yield "s3://benchmark"
    finally:
        server.terminate()
        server.wait()


def pipelines(root: Path, dataset: Dataset, shards: Path, remote: Dataset, cache: Path) -> dict[str, Pipe]:
    """All that is compared, by name."""
    in_shards = index_dataset(shards).train
    names = [str(path) for path in sorted(shards.glob("train-*.tar"))]
    copies = ShardCache(folder=cache, max_bytes=10**10)
    warm = {
        "dnctl folder": dnctl("dali", dataset.train),
        "dnctl shards": dnctl("dali", in_shards),
        "dali files": dali_files(root),
        "dali webdataset": dali_webdataset(names),
        "torchvision": torchvision(root),
        "webdataset": webdataset_loader(names),
        "dnctl folder, pytorch": dnctl("pytorch", dataset.train),
        "dnctl folder, colors": dnctl("dali", dataset.train, colors=True),
        "torchvision, colors": torchvision(root, colors=True),
        "dnctl s3": dnctl("dali", remote.train),
        "dnctl s3, copies on disk": dnctl("dali", remote.train, cache=copies),
    }
    cold = ("dnctl folder", "dnctl shards", "torchvision", "dali files")
    return warm | {name + COLD: warm[name] for name in cold}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--batches", type=int, default=40, help="batches measured in a round, of 64 images each")
    parser.add_argument("--threads", type=int, default=2, help="threads, or worker processes, of each pipeline")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root, shards, cache = Path(folder, "images"), Path(folder, "shards"), Path(folder, "cache")
        mean_bytes = write_photographs(root)
        dataset = index_dataset(root)
        write_shards(dataset, shards, shard_bytes=SHARD_BYTES)
        with object_store(shards) as address:
            remote = index_dataset(address, cache_dir=cache)
            compared = pipelines(root, dataset, shards, remote, cache)
            rates: dict[str, list[float]] = {name: [] for name in compared}
            for _ in range(arguments.repeats):
                for name, pipe in compared.items():
                    # A cold run ends before files are read a second time.
                    num_batches = min(arguments.batches, 3) if name.endswith(COLD) else arguments.batches
                    if name.endswith(COLD):
                        forget(Path(folder))
                    rates[name].append(images_per_s(pipe, arguments.threads, num_batches))
    rows = [
        row_of(name, measured, arguments.threads) | {"image_bytes": round(mean_bytes)}
        for name, measured in rates.items()
    ]
    ratios = {name: ratio_of_rates(rates[ours], rates[theirs]) for name, (ours, theirs) in RATIOS.items()}
    print_document(document(rows=rows, ratios=ratios), as_json=arguments.json)


def row_of(name: str, measured: list[float], num_threads: int) -> dict[str, Any]:
    """What a pipeline came to."""
    return {
        "pipeline": name,
        "images_per_s": median(measured),
        "per_core": median(measured) / num_threads,
        "lowest": min(measured),
        "highest": max(measured),
        "threads": num_threads,
    }


if __name__ == "__main__":
    main()
