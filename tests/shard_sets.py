"""What tests of shard sets share: sizes, patience, and the batches that a loader makes of one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.data.batch import SampleRequest
from orchestrator.data.index import build_manifest
from orchestrator.data.loader import available_loader, open_loader
from orchestrator.data.source import open_source
from orchestrator.data.storage import Retries
from orchestrator.data.transforms import TrainTransform
from tests.s3_server import (
    S3Server,
)

KINDS = [
    pytest.param("dali", marks=pytest.mark.skipif(available_loader() != "dali", reason="needs NVIDIA DALI")),
    "pytorch",
]
SHARD_BYTES = 30_000
IMPATIENT = Retries(max_attempts=4, first_delay_s=0.01, request_timeout_s=1)


def upload(server: S3Server, root: Path, prefix: str) -> None:
    for path in (*root.glob("*.tar"), *root.glob("*.arrow")):
        with server.filesystem.open_output_stream(f"{prefix}/{path.name}") as stream:
            stream.write(path.read_bytes())


def batches_of(manifest, kind="pytorch", **options):
    transform = TrainTransform(image_size=24, crop="torch", interpolation="bilinear")
    order = np.random.default_rng(0).permutation(manifest.num_samples)
    requests = [SampleRequest(epoch=1, indices=part) for part in np.array_split(order, 4)]
    with open_loader(
        kind,
        manifest,
        transform,
        seed=5,
        requests=iter(requests),
        max_batch_size=16,
        device="cpu",
        num_threads=2,
        **options,
    ) as loader:
        return list(loader)


def assert_same_batches(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert torch.equal(batch.images, other.images)
        assert torch.equal(batch.labels, other.labels)


def read_all(root, **options):
    manifest = build_manifest(root, "train")
    source = open_source(manifest, **options)
    try:
        return [source.read(index) for index in range(manifest.num_samples)]
    finally:
        source.close()
