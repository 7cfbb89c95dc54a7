"""The reference loader: PIL, one image at a time, on a pool of threads. It reads as the definition of a batch.

PIL lets go of the interpreter's lock while it decodes and resizes, so threads are as good as processes here and need
no shared memory.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from orchestrator.data.batch import Batch, SampleRequest
from orchestrator.data.image import BadImageError, quiet_pil, read_rgb
from orchestrator.data.loader import Loader, unreadable
from orchestrator.data.manifest import Manifest
from orchestrator.data.transforms import Geometry, Interpolation, Transform

_RESAMPLING: dict[Interpolation, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

Pixels = npt.NDArray[np.uint8]


class ReferenceLoader(Loader):
    """Evaluates requests with PIL. See `open_loader` for the arguments."""

    def __init__(
        self,
        manifest: Manifest,
        transform: Transform,
        *,
        seed: int,
        requests: Iterator[SampleRequest],
        device: torch.device,
        num_threads: int,
        prefetch: int,
    ) -> None:
        self._manifest = manifest
        self._transform = transform
        self._seed = seed
        self._requests = requests
        self._device = device
        self._prefetch = prefetch
        self._pending: deque[tuple[SampleRequest, list[Future[Pixels]]]] = deque()
        self._resources = ExitStack()
        self._resources.enter_context(quiet_pil())
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="dnctl-read")
        self._resources.callback(self._pool.shutdown, cancel_futures=True)

    def __next__(self) -> Batch:
        while len(self._pending) <= self._prefetch and (request := next(self._requests, None)) is not None:
            self._pending.append((request, self._begin(request)))
        if not self._pending:
            raise StopIteration
        request, futures = self._pending.popleft()
        side = self._transform.output_size
        images = np.empty((len(futures), side, side, 3), dtype=np.uint8)
        for image, future in zip(images, futures, strict=True):
            image[:] = future.result()
        return Batch(
            images=torch.from_numpy(images).to(self._device),
            labels=torch.from_numpy(self._manifest.labels[request.indices]).to(self._device),
            indices=request.indices,
            epoch=request.epoch,
        )

    def close(self) -> None:
        """End the loader's threads and drop what was prefetched. May be called twice."""
        self._pending.clear()
        self._resources.close()

    def _begin(self, request: SampleRequest) -> list[Future[Pixels]]:
        geometry = self._transform.geometry(self._manifest, request.indices, seed=self._seed, epoch=request.epoch)
        return [self._pool.submit(self._render, int(index), geometry, row) for row, index in enumerate(request.indices)]

    def _render(self, index: int, geometry: Geometry, row: int) -> Pixels:
        path = self._manifest.path(index)
        try:
            image = read_rgb(path, self._manifest.header(index))
        except BadImageError as error:
            raise unreadable(path, error) from error
        return render(
            image, geometry, row, side=self._transform.output_size, interpolation=self._transform.interpolation
        )


def render(image: Image.Image, geometry: Geometry, row: int, *, side: int, interpolation: Interpolation) -> Pixels:
    """One output image, uint8[side, side, 3]: the decoded `image` by the numbers in a row of `geometry`."""
    x, y, width, height = geometry.boxes[row].tolist()
    resized_width, resized_height = geometry.resized[row].tolist()
    left, top = geometry.window_origins[row].tolist()
    box = image.crop((x, y, x + width, y + height))
    resized = box.resize((resized_width, resized_height), _RESAMPLING[interpolation])
    window = np.asarray(resized.crop((left, top, left + side, top + side)))
    return window[:, ::-1] if geometry.mirrored[row] else window
