"""The fast loader: NVIDIA DALI reads, decodes, crops, resizes and mirrors in native threads.

DALI draws nothing and keeps no order: every batch is fed to the pipeline as arrays, from the same `Geometry` that the
reference loader evaluates. On the CPU, the decoded pixels equal PIL's to the bit, within the box as in the whole
image, and the antialiased linear resize is within 1 of 255 of PIL's bilinear one (cubic: 3).
"""

import os
from collections import deque
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from nvidia.dali import Pipeline, fn, types
from torch.utils.dlpack import from_dlpack

from orchestrator.data.batch import Batch, SampleRequest
from orchestrator.data.image import BadImageError, changed_size, read_rgb
from orchestrator.data.loader import Loader, unreadable
from orchestrator.data.manifest import Manifest
from orchestrator.data.transforms import Interpolation, Transform
from orchestrator.errors import DataError

_INTERPOLATION: dict[Interpolation, types.DALIInterpType] = {
    "bilinear": types.INTERP_LINEAR,
    "bicubic": types.INTERP_CUBIC,
}


class DaliLoader(Loader):
    """Evaluates requests with a DALI pipeline. See `open_loader` for the arguments."""

    def __init__(
        self,
        manifest: Manifest,
        transform: Transform,
        *,
        seed: int,
        requests: Iterator[SampleRequest],
        max_batch_size: int,
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
        self._pending: deque[SampleRequest] = deque()
        self._pipeline: Pipeline | None = _build_pipeline(
            transform,
            max_batch_size=max_batch_size,
            device=device,
            num_threads=num_threads,
        )

    def __next__(self) -> Batch:
        while len(self._pending) <= self._prefetch and (request := next(self._requests, None)) is not None:
            self._begin(request)
        if not self._pending:
            raise StopIteration
        request = self._pending.popleft()
        return Batch(
            images=self._finish(request),
            labels=torch.from_numpy(self._manifest.labels[request.indices]).to(self._device),
            indices=request.indices,
            epoch=request.epoch,
        )

    def close(self) -> None:
        """End the loader's threads and drop what was prefetched. May be called twice."""
        self._pending.clear()
        self._pipeline = None

    def _begin(self, request: SampleRequest) -> None:
        self._pending.append(request)
        if len(request.indices) == 0 or self._pipeline is None:
            return  # DALI has no empty batches
        geometry = self._transform.geometry(self._manifest, request.indices, seed=self._seed, epoch=request.epoch)
        pipeline = self._pipeline
        pipeline.feed_input("paths", _as_byte_arrays(self._manifest.paths(request.indices)))
        pipeline.feed_input("box_origins", np.ascontiguousarray(geometry.boxes[:, :2], dtype=np.int32))
        pipeline.feed_input("box_sizes", np.ascontiguousarray(geometry.boxes[:, 2:], dtype=np.int32))
        pipeline.feed_input("mirrored", geometry.mirrored.astype(np.int32))
        if not self._transform.keeps_all_of_resized:
            pipeline.feed_input("resized", np.ascontiguousarray(geometry.resized[:, ::-1], dtype=np.float32))
            pipeline.feed_input("window_origins", geometry.window_origins.astype(np.int32))
        pipeline.schedule_run()

    def _finish(self, request: SampleRequest) -> torch.Tensor:
        side = self._transform.output_size
        if len(request.indices) == 0 or self._pipeline is None:
            return torch.empty((0, side, side, 3), dtype=torch.uint8, device=self._device)
        try:
            images, num_bytes = self._pipeline.outputs()
        except RuntimeError as error:
            raise self._explain(request, error) from error
        self._check_sizes(request, np.asarray(num_bytes.as_array())[:, 0])
        return from_dlpack(images.as_tensor())

    def _check_sizes(self, request: SampleRequest, num_bytes: npt.NDArray[np.int64]) -> None:
        """Raise DataError if a file isn't as long as when it was indexed: cut files decode without complaint."""
        expected = self._manifest.num_bytes[request.indices]
        for row in np.flatnonzero(num_bytes != expected):
            problem = BadImageError(changed_size(int(num_bytes[row]), int(expected[row])))
            raise unreadable(self._manifest.path(int(request.indices[row])), problem)

    def _explain(self, request: SampleRequest, error: RuntimeError) -> DataError:
        """The error for a batch that DALI failed at, which doesn't say reliably at which image: the first bad one."""
        for index, path in zip(request.indices, self._manifest.paths(request.indices), strict=True):
            try:
                read_rgb(path, self._manifest.header(int(index)))
            except BadImageError as problem:
                return unreadable(path, problem)
        names = "\n".join(f"  {path}" for path in self._manifest.paths(request.indices))
        return DataError(f"DALI can't read one of these files, though PIL can:\n{names}\n{error}")


def _build_pipeline(transform: Transform, *, max_batch_size: int, device: torch.device, num_threads: int) -> Pipeline:
    """The pipeline: inputs are fed a batch at a time; outputs are images, uint8 NHWC, and the files' sizes in bytes."""
    on_gpu = device.type == "cuda"
    side = transform.output_size
    pipeline = Pipeline(
        batch_size=max_batch_size,
        num_threads=num_threads,
        device_id=device.index if on_gpu else None,
        prefetch_queue_depth=1,  # the most that DALI runs without being told to; `DaliLoader` schedules ahead itself
    )
    with pipeline:
        paths = fn.external_source(name="paths", ndim=1, dtype=types.UINT8)
        box_origins = fn.external_source(name="box_origins", ndim=1, dtype=types.INT32)
        box_sizes = fn.external_source(name="box_sizes", ndim=1, dtype=types.INT32)
        mirrored = fn.external_source(name="mirrored", ndim=0, dtype=types.INT32)
        encoded = fn.io.file.read(paths)
        boxes = fn.decoders.image_slice(
            encoded,
            box_origins,
            box_sizes,
            axes=[1, 0],
            device="mixed" if on_gpu else "cpu",
            output_type=types.RGB,
            adjust_orientation=False,
            jpeg_fancy_upsampling=True,
        )
        interpolation = _INTERPOLATION[transform.interpolation]
        if transform.keeps_all_of_resized:
            resized = fn.resize(boxes, size=[side, side], interp_type=interpolation, antialias=True)
            images = fn.flip(resized, horizontal=mirrored)
        else:
            sizes = fn.external_source(name="resized", ndim=1, dtype=types.FLOAT)
            resized = fn.resize(boxes, size=sizes, interp_type=interpolation, antialias=True)
            origins = fn.external_source(name="window_origins", ndim=1, dtype=types.INT32)
            images = fn.flip(fn.slice(resized, origins, [side, side], axes=[1, 0]), horizontal=mirrored)
        pipeline.set_outputs(images, encoded.shape())
    pipeline.build()
    return pipeline


def _as_byte_arrays(paths: list[str]) -> list[npt.NDArray[np.uint8]]:
    return [np.frombuffer(os.fsencode(path), dtype=np.uint8) for path in paths]
