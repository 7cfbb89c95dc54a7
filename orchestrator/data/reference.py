"""The reference loader: PIL decodes one image at a time, on a pool of threads. It reads as the definition of a batch.

PIL and torch let go of the interpreter's lock while they work, so threads do as well as processes here and need no
shared memory.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import torch

from orchestrator.data.batch import Batch, SampleRequest
from orchestrator.data.image import BadImageError, decode_rgb, quiet_pil
from orchestrator.data.loader import Loader
from orchestrator.data.manifest import Manifest
from orchestrator.data.resize import Pixels, resize_windows
from orchestrator.data.source import Source, unreadable
from orchestrator.data.transforms import Geometry, Transform


class ReferenceLoader(Loader):
    """Evaluates requests with PIL. See `open_loader` for the arguments."""

    def __init__(
        self,
        manifest: Manifest,
        source: Source,
        transform: Transform,
        *,
        seed: int,
        requests: Iterator[SampleRequest],
        device: torch.device,
        num_threads: int,
        prefetch: int,
    ) -> None:
        self._manifest = manifest
        self._source = source
        self._transform = transform
        self._seed = seed
        self._requests = requests
        self._device = device
        self._prefetch = prefetch
        self._pending: deque[tuple[SampleRequest, Pixels, list[Future[None]]]] = deque()
        self._resources = ExitStack()
        self._resources.enter_context(quiet_pil())
        self._resources.callback(source.close)
        self._readers = ThreadPoolExecutor(source.num_readers, thread_name_prefix="dnctl-read")
        self._resources.callback(self._readers.shutdown, cancel_futures=True)
        self._decoders = ThreadPoolExecutor(num_threads, thread_name_prefix="dnctl-decode")
        self._resources.callback(self._decoders.shutdown, cancel_futures=True)

    def __next__(self) -> Batch:
        while len(self._pending) <= self._prefetch and (request := next(self._requests, None)) is not None:
            self._begin(request)
        if not self._pending:
            raise StopIteration
        request, images, futures = self._pending.popleft()
        for future in futures:
            future.result()
        color = self._transform.color_maps(request.indices, seed=self._seed, epoch=request.epoch)
        return Batch(
            images=torch.from_numpy(images).to(self._device),
            labels=torch.from_numpy(self._manifest.labels[request.indices]).to(self._device),
            indices=request.indices,
            epoch=request.epoch,
            color=color and color.to(self._device),
        )

    def close(self) -> None:
        """End the loader's threads and drop what was prefetched. May be called twice."""
        self._pending.clear()
        self._resources.close()

    def _begin(self, request: SampleRequest) -> None:
        geometry = self._transform.geometry(self._manifest, request.indices, seed=self._seed, epoch=request.epoch)
        side, views = self._transform.output_size, self._transform.num_views
        images = np.empty((len(request.indices) * views, side, side, 3), dtype=np.uint8)
        encoded = [self._readers.submit(self._source.read, index) for index in request.indices.tolist()]
        futures = [
            self._decoders.submit(
                self._decode, index, encoded[row], geometry, row, images[row * views : (row + 1) * views]
            )
            for row, index in enumerate(request.indices.tolist())
        ]
        self._pending.append((request, images, futures))

    def _decode(self, index: int, encoded: Future[bytes], geometry: Geometry, row: int, out: Pixels) -> None:
        try:
            image = decode_rgb(encoded.result(), self._manifest.header(index))
        except BadImageError as error:
            raise unreadable(self._manifest.path(index), error) from error
        x, y, width, height = geometry.boxes[row].tolist()
        box = np.array(image.crop((x, y, x + width, y + height)))
        resize_windows(box, geometry, row, self._transform.interpolation, out)
