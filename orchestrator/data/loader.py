"""What loaders have in common: they turn requests for samples into batches, in order, ahead of time.

A loader holds no state that matters: a batch is a function of (manifest, transform, seed, request). So it can begin
anywhere, and going on in the middle of an epoch costs what beginning one does.
"""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Literal, Self

import torch

from orchestrator.data.batch import Batch, SampleRequest
from orchestrator.data.manifest import Manifest
from orchestrator.data.source import open_source
from orchestrator.data.staging import ShardCache
from orchestrator.data.transforms import Transform
from orchestrator.errors import UsageError

LoaderKind = Literal["dali", "pytorch"]


class Loader(ABC, Iterator[Batch]):
    """An iterator over the batches of its requests. Close it, or use it as a context, to end its threads."""

    @abstractmethod
    def __next__(self) -> Batch:
        """The batch of the next request; it stays valid as long as it is held on to.

        Raises StopIteration when requests have ended, and DataError, naming the file, for an image that can't be read.
        """

    @abstractmethod
    def close(self) -> None:
        """End the loader's threads and drop what was prefetched. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def available_loader() -> LoaderKind:
    """The faster loader that is installed here."""
    return "dali" if _is_installed("nvidia.dali") else "pytorch"


def open_loader(
    kind: LoaderKind,
    manifest: Manifest,
    transform: Transform,
    *,
    seed: int,
    requests: Iterator[SampleRequest],
    max_batch_size: int,
    device: Literal["cpu", "cuda"],
    device_index: int = 0,
    num_threads: int,
    prefetch: int = 2,
    cache: ShardCache | None = None,
    decoder: Literal["cpu", "mixed"] = "cpu",
) -> Loader:
    """A loader of the samples of a manifest.

    seed: the recipe's; with a request's epoch it decides crops and mirrors.
    requests: drawn from lazily, at most `prefetch` + 1 ahead of the batches given out; it may be endless.
    max_batch_size: the most samples that a request has.
    device: where batches are put.
    cache: where shards are copied to; None to read them where they lie.
    decoder: whether DALI decodes and resizes on the CPU, to the same bits as the other loader, or on the GPU.
    Raises DataError if an image is too small for the transform, and UsageError if DALI is asked for and missing.
    """
    transform.check(manifest)
    if kind == "dali":
        if not _is_installed("nvidia.dali"):
            raise UsageError(
                "The loader 'dali' needs NVIDIA DALI, which isn't installed here: pip install 'dnctl[cuda130]', "
                "or use data.loader=pytorch."
            )
        from orchestrator.data.dali import DaliLoader  # importing DALI takes a second and needs it to be there

        return DaliLoader(
            manifest,
            open_source(manifest, cache=cache),
            transform,
            seed=seed,
            requests=requests,
            max_batch_size=max_batch_size,
            device=torch.device(device, device_index),
            num_threads=num_threads,
            prefetch=prefetch,
            decoder=decoder,
        )
    from orchestrator.data.reference import ReferenceLoader

    return ReferenceLoader(
        manifest,
        open_source(manifest, cache=cache),
        transform,
        seed=seed,
        requests=requests,
        device=torch.device(device, device_index),
        num_threads=num_threads,
        prefetch=prefetch,
    )


def _is_installed(module: str) -> bool:
    package, _, _ = module.partition(".")
    return importlib.util.find_spec(package) is not None and importlib.util.find_spec(module) is not None
