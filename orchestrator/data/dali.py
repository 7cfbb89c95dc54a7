"""The fast loader: NVIDIA DALI decodes the cropped box of each image, in native threads; it reads files there as well.

DALI draws nothing and keeps no order: it is fed, a batch at a time, the same `Geometry` that the reference loader
evaluates. On the CPU its pixels equal PIL's to the bit, within a box as in a whole image, and resize.py does the rest.
On a GPU it resizes and mirrors as well.

All calls into the pipeline come from one thread, so that the next batch is decoded while this one is resized.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from nvidia.dali import Pipeline, fn, types
from torch.utils.dlpack import from_dlpack

from orchestrator.data.batch import Batch, SampleRequest
from orchestrator.data.color import ColorMaps
from orchestrator.data.image import BadImageError, changed_size, decode_rgb
from orchestrator.data.loader import Loader
from orchestrator.data.manifest import Manifest
from orchestrator.data.resize import resize_windows
from orchestrator.data.source import Source, unreadable
from orchestrator.data.transforms import Geometry, Interpolation, Transform
from orchestrator.errors import DataError

_INTERPOLATION: dict[Interpolation, types.DALIInterpType] = {
    "bilinear": types.INTERP_LINEAR,
    "bicubic": types.INTERP_CUBIC,
}


_ROWS_PER_TASK = 8  # images resized by a thread at a time: enough that handing them out costs nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """A batch on its way through the pipeline."""

    request: SampleRequest
    geometry: Geometry
    color: ColorMaps | None
    encoded: list[Future[bytes]]
    """Of each image, where DALI doesn't read them itself."""
    begun: Future[None]


class DaliLoader(Loader):
    """Evaluates requests with a DALI pipeline. See `open_loader` for the arguments."""

    def __init__(
        self,
        manifest: Manifest,
        source: Source,
        transform: Transform,
        *,
        seed: int,
        requests: Iterator[SampleRequest],
        max_batch_size: int,
        device: torch.device,
        num_threads: int,
        prefetch: int,
        decoder: Literal["cpu", "mixed"],
    ) -> None:
        self._manifest = manifest
        self._source = source
        self._transform = transform
        self._seed = seed
        self._requests = requests
        self._device = device
        self._prefetch = prefetch
        self._reads_files = manifest.shards is None
        self._on_gpu = decoder == "mixed"
        self._pipeline = build_pipeline(
            transform,
            max_batch_size,
            num_threads,
            gpu=device.index if self._on_gpu else None,
            reads_files=self._reads_files,
        )
        self._readers = ThreadPoolExecutor(source.num_readers, thread_name_prefix="dnctl-read")
        self._feeder = ThreadPoolExecutor(1, thread_name_prefix="dnctl-dali")
        self._resizers = ThreadPoolExecutor(num_threads, thread_name_prefix="dnctl-resize")
        self._decoding: _Work | None = None
        self._pending: deque[Future[Batch]] = deque()

    def __next__(self) -> Batch:
        while len(self._pending) < self._prefetch and self._advance():
            pass
        if not self._pending:
            raise StopIteration
        return self._pending.popleft().result()

    def close(self) -> None:
        """End the loader's threads and drop what was prefetched. May be called twice."""
        self._pending.clear()
        self._readers.shutdown(cancel_futures=True)
        self._source.close()
        self._feeder.shutdown(cancel_futures=True)
        self._resizers.shutdown(cancel_futures=True)

    def _advance(self) -> bool:
        """Begin the next request, then queue the completion of the one before it; False when there is neither."""
        request = next(self._requests, None)
        previous, self._decoding = self._decoding, None
        if request is not None:
            geometry = self._transform.geometry(self._manifest, request.indices, seed=self._seed, epoch=request.epoch)
            encoded = [] if self._reads_files else self._start_reading(request)
            self._decoding = _Work(
                request=request,
                geometry=geometry,
                color=self._transform.color_maps(request.indices, seed=self._seed, epoch=request.epoch),
                encoded=encoded,
                begun=self._feeder.submit(self._begin, request, geometry, encoded),
            )
        if previous is not None:
            self._pending.append(self._feeder.submit(self._complete, previous))
        return request is not None or previous is not None

    def _start_reading(self, request: SampleRequest) -> list[Future[bytes]]:
        return [self._readers.submit(self._source.read, index) for index in request.indices.tolist()]

    def _begin(self, request: SampleRequest, geometry: Geometry, encoded: list[Future[bytes]]) -> None:
        if len(request.indices) == 0:
            return  # DALI has no empty batches
        for name, values in self._inputs(request, geometry, encoded).items():
            self._pipeline.feed_input(name, values)
        self._pipeline.schedule_run()

    def _inputs(self, request: SampleRequest, geometry: Geometry, encoded: list[Future[bytes]]) -> dict[str, Any]:
        """What the pipeline is fed for a batch, by the names of its inputs."""
        if self._reads_files:
            images = [os.fsencode(path) for path in self._manifest.paths(request.indices)]
        else:
            images = [future.result() for future in encoded]
        inputs = {
            "image": [np.frombuffer(image, dtype=np.uint8) for image in images],
            "box_origin": geometry.boxes[:, :2].astype(np.int32),
            "box_size": geometry.boxes[:, 2:].astype(np.int32),
        }
        if self._on_gpu:
            inputs["resized"] = geometry.resized.astype(np.float32)
            for view in range(self._transform.num_views):
                of_view = slice(view, None, self._transform.num_views)
                inputs[f"window_origin{view}"] = geometry.window_origins[of_view].astype(np.int32)
                inputs[f"mirrored{view}"] = geometry.mirrored[of_view].astype(np.int32)
        return inputs

    def _complete(self, work: _Work) -> Batch:
        work.begun.result()
        return Batch(
            images=self._images(work).to(self._device),
            labels=torch.from_numpy(self._manifest.labels[work.request.indices]).to(self._device),
            indices=work.request.indices,
            epoch=work.request.epoch,
            color=work.color and work.color.to(self._device),
        )

    def _images(self, work: _Work) -> torch.Tensor:
        request, geometry = work.request, work.geometry
        side, views = self._transform.output_size, self._transform.num_views
        if len(request.indices) == 0:
            return torch.empty((0, side, side, 3), dtype=torch.uint8)
        try:
            *pixels, num_bytes = self._pipeline.outputs()
        except RuntimeError as error:
            raise self._explain(work, error) from error
        self._check_sizes(request, num_bytes.as_array()[:, 0])
        if self._on_gpu:
            return torch.stack([from_dlpack(view.as_tensor()) for view in pixels], dim=1).flatten(0, 1)
        (boxes,) = pixels
        images = np.empty((len(request.indices) * views, side, side, 3), dtype=np.uint8)

        def resize(start: int) -> None:
            for row in range(start, min(start + _ROWS_PER_TASK, len(request.indices))):
                out = images[row * views : (row + 1) * views]
                resize_windows(np.asarray(boxes[row]), geometry, row, self._transform.interpolation, out)

        list(self._resizers.map(resize, range(0, len(request.indices), _ROWS_PER_TASK)))
        return torch.from_numpy(images)

    def _check_sizes(self, request: SampleRequest, num_bytes: npt.NDArray[np.int64]) -> None:
        """Raise DataError if a file isn't as long as when it was indexed: DALI decodes cut files without complaint."""
        expected = self._manifest.num_bytes[request.indices]
        for row in np.flatnonzero(num_bytes != expected):
            problem = BadImageError(changed_size(int(num_bytes[row]), int(expected[row])))
            raise unreadable(self._manifest.path(int(request.indices[row])), problem)

    def _explain(self, work: _Work, error: RuntimeError) -> DataError:
        """The error for a batch that DALI failed at. DALI doesn't say at which image, so all are looked at again."""
        indices = work.request.indices.tolist()
        encoded = [future.result() for future in work.encoded]
        for row, index in enumerate(indices):
            try:
                decode_rgb(encoded[row] if encoded else self._source.read(index), self._manifest.header(index))
            except BadImageError as problem:
                return unreadable(self._manifest.path(index), problem)
            except DataError as problem:
                return problem
        names = "\n".join(f"  {self._manifest.path(index)}" for index in indices)
        return DataError(f"DALI can't read one of these files, though PIL reads them all:\n{names}\n{error}")


def build_pipeline(
    transform: Transform, max_batch_size: int, num_threads: int, *, gpu: int | None, reads_files: bool
) -> Pipeline:
    """The pipeline. Its outputs are the decoded boxes (on a GPU: the finished images) and the files' sizes in bytes.

    gpu: the number of the one that decodes and resizes; None for the CPU.
    reads_files: whether it is fed the paths of files, or their bytes.
    """
    on_gpu = gpu is not None
    pipeline = Pipeline(
        batch_size=max_batch_size,
        num_threads=num_threads,
        device_id=gpu,
        prefetch_queue_depth=1,  # how many batches DALI asks for by itself; the loader schedules ahead
    )
    with pipeline:
        encoded = fn.external_source(name="image", ndim=1, dtype=types.UINT8)
        if reads_files:
            encoded = fn.io.file.read(encoded)
        images = fn.decoders.image_slice(
            encoded,
            fn.external_source(name="box_origin", ndim=1, dtype=types.INT32),
            fn.external_source(name="box_size", ndim=1, dtype=types.INT32),
            axes=[1, 0],
            device="mixed" if on_gpu else "cpu",
            output_type=types.RGB,
            adjust_orientation=False,
            jpeg_fancy_upsampling=True,  # as libjpeg-turbo does
        )
        outputs = _resize_on_gpu(images, transform) if on_gpu else [images]
        pipeline.set_outputs(*outputs, encoded.shape())
    pipeline.build()
    return pipeline


def _resize_on_gpu(images: Any, transform: Transform) -> list[Any]:
    """Resize, cut out each view's window, mirror: nodes of the pipeline that is being built."""
    side = transform.output_size
    resized = fn.external_source(name="resized", ndim=1, dtype=types.FLOAT)
    images = fn.resize(
        images,
        resize_x=resized[0],
        resize_y=resized[1],
        interp_type=_INTERPOLATION[transform.interpolation],
        antialias=True,
    )
    fill = list(transform.fill)
    views = []
    for view in range(transform.num_views):
        origin = fn.external_source(name=f"window_origin{view}", ndim=1, dtype=types.INT32)
        window = fn.slice(images, origin, [side, side], axes=[1, 0], out_of_bounds_policy="pad", fill_values=fill)
        mirrored = fn.external_source(name=f"mirrored{view}", ndim=0, dtype=types.INT32)
        views.append(fn.flip(window, horizontal=mirrored))
    return views
