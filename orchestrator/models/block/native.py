"""The fused block's operations on a CPU: native.cpp around BLAS and oneDNN.

The 1x1 convolutions are products of tiles that are normalised in cache; the 3x3 ones are oneDNN's. In bfloat16 maps and
gradients are stored in 16 bits and computed in 32: a processor without bfloat16 arithmetic loses nothing by it.
"""

import ctypes
import threading
from ctypes import POINTER, Structure, c_double, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from orchestrator.models.block.compile import Built, NoCompilerError, build
from orchestrator.models.block.kernels import Gradient, Grid, Moments, Norm, ParameterGradients, Source
from orchestrator.models.block.layout import as_images, as_rows
from orchestrator.models.block.plain import PlainKernels

_SUFFIXES: Final = {torch.float32: "f32", torch.bfloat16: "bf16"}


class _Grid(Structure):
    _fields_ = (
        ("bounds", POINTER(c_int64)),
        ("num_values", POINTER(c_int64)),
        ("num_groups", c_int64),
        ("height", c_int64),
        ("width", c_int64),
        ("num_threads", c_int32),
    )


class _Norm(Structure):
    _fields_ = (
        ("mean", c_void_p),
        ("var", c_void_p),
        ("pitch", c_int64),
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("eps", c_double),
        ("of_batch", c_int32),
    )


class _Moments(Structure):
    _fields_ = (("mean", c_void_p), ("var", c_void_p), ("pitch", c_int64))


class _Sums(Structure):
    _fields_ = (
        ("a", c_void_p),
        ("b", c_void_p),
        ("pitch", c_int64),
        ("grad_weight", c_void_p),
        ("grad_bias", c_void_p),
        ("add", c_int32),
    )


class NativeKernels:
    """`Kernels` for float32 and bfloat16 on a CPU; other dtypes go to the plain ones."""

    name = "native"

    def __init__(self) -> None:
        """Raises NoCompilerError where the library can't be had."""
        built: Built = build()
        self.compile_s = built.compile_s
        self._library = built.library
        self._sgemm = _sgemm()
        self._plain = PlainKernels()
        self._kept = threading.local()

    def moments(self, maps: Tensor, moments: Moments, grid: Grid) -> None:
        """See `Kernels`."""
        if maps.dtype not in _SUFFIXES:
            return self._plain.moments(maps, moments, grid)
        self._call("moments", maps, *_matrix(maps), maps.shape[1], _moments(moments), _grid(grid))

    def pointwise(
        self, maps: Tensor, norm: Norm, weight: Tensor, out: Tensor, moments: Moments | None, grid: Grid
    ) -> None:
        """See `Kernels`."""
        if maps.dtype not in _SUFFIXES:
            return self._plain.pointwise(maps, norm, weight, out, moments, grid)
        weight = weight.float().contiguous()
        arguments = (*_matrix(maps), maps.shape[1], _norm(norm), _pointer(weight), len(weight), *_matrix(out))
        self._call("pointwise", maps, *arguments, _moments(moments), _grid(grid), self._sgemm)

    def convolve(
        self, maps: Tensor, norm: Norm, weight: Tensor, out: Tensor, moments: Moments | None, grid: Grid
    ) -> None:
        """See `Kernels`."""
        if maps.dtype not in _SUFFIXES:
            return self._plain.convolve(maps, norm, weight, out, moments, grid)
        activated = as_images(self._activated(maps, norm, grid), grid)
        convolved = as_rows(F.conv2d(activated, weight.float(), padding=1))
        self._call("place_wide", maps, _pointer(convolved), out.shape[1], *_matrix(out), _moments(moments), _grid(grid))

    def activate(self, maps: Tensor, norm: Norm, out: Tensor, grid: Grid, *, pool: bool) -> None:
        """See `Kernels`."""
        if maps.dtype not in _SUFFIXES:
            return self._plain.activate(maps, norm, out, grid, pool=pool)
        arguments = (*_matrix(maps), maps.shape[1], _norm(norm), _pointer(out), _grid(grid), c_int32(pool))
        self._call("activate", maps, *arguments)

    def finish(self, gradient: Gradient, source: Source, grid: Grid) -> Tensor:
        """See `Kernels`."""
        if gradient.grad.dtype not in _SUFFIXES:
            return self._plain.finish(gradient, source, grid)
        finished = torch.empty(gradient.grad.shape, dtype=gradient.grad.dtype)
        self._finish("finish", gradient, source, grid, finished)
        return finished

    def pointwise_backward(
        self,
        gradient: Gradient,
        source: Source,
        maps: Tensor,
        norm: Norm,
        weight: Tensor,
        into: Gradient,
        grid: Grid,
        *,
        add: bool,
    ) -> ParameterGradients:
        """See `Kernels`."""
        if maps.dtype not in _SUFFIXES:
            return self._plain.pointwise_backward(gradient, source, maps, norm, weight, into, grid, add=add)
        weight = weight.float().contiguous()
        grad_weight = torch.empty_like(weight)
        norm_gradients, sums = _sums(into, add)
        arguments = (*_gradient(gradient, source), *_matrix(maps), maps.shape[1], _norm(norm), _pointer(weight))
        arguments = (*arguments, len(weight), *_matrix(into.grad), sums, _pointer(grad_weight), _grid(grid))
        self._call("pointwise_backward", maps, *arguments, self._sgemm)
        return ParameterGradients(*norm_gradients, grad_weight)

    def convolve_backward(
        self,
        gradient: Gradient,
        source: Source,
        maps: Tensor,
        norm: Norm,
        weight: Tensor,
        into: Gradient,
        grid: Grid,
        *,
        add: bool,
    ) -> ParameterGradients:
        """See `Kernels`."""
        if maps.dtype not in _SUFFIXES:
            return self._plain.convolve_backward(gradient, source, maps, norm, weight, into, grid, add=add)
        finished = self._scratch("finished", gradient.grad.shape)
        self._finish("finish_wide", gradient, source, grid, finished)
        grad_out = as_images(finished, grid)
        activated = as_images(self._activated(maps, norm, grid), grid)
        grad_activated, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad_out, activated, weight.float(), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, False]
        )
        rows = as_rows(grad_activated)
        norm_gradients, sums = _sums(into, add)
        arguments = (_pointer(rows), *_matrix(maps), maps.shape[1], _norm(norm), *_matrix(into.grad), sums)
        self._call("norm_backward_wide", maps, *arguments, _grid(grid))
        return ParameterGradients(*norm_gradients, grad_weight)

    def activate_backward(
        self, grad: Tensor, maps: Tensor, norm: Norm, into: Gradient, grid: Grid, *, pool: bool
    ) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        if maps.dtype not in _SUFFIXES:
            return self._plain.activate_backward(grad, maps, norm, into, grid, pool=pool)
        grad = grad.to(maps.dtype).contiguous()
        norm_gradients, sums = _sums(into, False)
        arguments = (_pointer(grad), *_matrix(maps), maps.shape[1], _norm(norm), *_matrix(into.grad), sums)
        self._call("norm_backward", maps, *arguments, _grid(grid), c_int32(pool))
        return norm_gradients

    def _activated(self, maps: Tensor, norm: Norm, grid: Grid) -> Tensor:
        """relu(norm(maps)) in float32."""
        activated = self._scratch("activated", maps.shape)
        self._call("activate_wide", maps, *_matrix(maps), maps.shape[1], _norm(norm), _pointer(activated), _grid(grid))
        return activated

    def _finish(self, operation: str, gradient: Gradient, source: Source, grid: Grid, finished: Tensor) -> None:
        arguments = (*_gradient(gradient, source), gradient.grad.shape[1], _pointer(finished), _grid(grid))
        self._call(operation, source.maps, *arguments)

    def _scratch(self, name: str, shape: torch.Size) -> Tensor:
        """float32[shape] until the next call of that name in this thread: new memory costs more than what fills it."""
        kept: Tensor | None = getattr(self._kept, name, None)
        if kept is None or kept.numel() < shape.numel():
            kept = torch.empty(shape.numel())
            setattr(self._kept, name, kept)
        return kept[: shape.numel()].view(shape)

    def _call(self, operation: str, maps: Tensor, *arguments: Any) -> None:
        function = getattr(self._library, f"{operation}_{_SUFFIXES[maps.dtype]}")
        function.restype = None
        function(*(c_int64(value) if isinstance(value, int) else value for value in arguments))


def _sgemm() -> c_void_p:
    """BLAS's sgemm in the library that torch computes with. Raises NoCompilerError without one."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return ctypes.cast(library.sgemm_, c_void_p)
    except (OSError, AttributeError):
        raise NoCompilerError("this build of torch has no sgemm to share: set model.block=reference") from None


def _pointer(tensor: Tensor) -> c_void_p:
    return c_void_p(tensor.data_ptr())


def _matrix(rows: Tensor) -> tuple[c_void_p, int]:
    return _pointer(rows), max(rows.stride(0), rows.shape[1])


def _grid(grid: Grid) -> _Grid:
    bounds, num_values = grid.row_bounds, grid.num_values
    return _Grid(
        (c_int64 * len(bounds))(*bounds),
        (c_int64 * len(num_values))(*num_values),
        grid.num_groups,
        grid.height,
        grid.width,
        torch.get_num_threads(),
    )


def _norm(norm: Norm) -> _Norm:
    mean, var = norm.moments
    assert norm.weight.is_contiguous()
    assert norm.bias.is_contiguous()
    return _Norm(
        mean.data_ptr(),
        var.data_ptr(),
        mean.stride(0),
        norm.weight.data_ptr(),
        norm.bias.data_ptr(),
        norm.eps,
        norm.of_batch,
    )


def _moments(moments: Moments | None) -> _Moments:
    if moments is None:
        return _Moments(None, None, 0)
    return _Moments(moments.mean.data_ptr(), moments.var.data_ptr(), moments.mean.stride(0))


def _gradient(gradient: Gradient, source: Source) -> tuple[Any, ...]:
    """As the library takes a gradient with what finishes it."""
    sums = (_pointer(gradient.a), _pointer(gradient.b), gradient.a.stride(0))
    return (*_matrix(gradient.grad), *sums, *_matrix(source.maps), _pointer(source.mean), source.mean.stride(0))


def _sums(into: Gradient, add: bool) -> tuple[tuple[Tensor, Tensor], _Sums]:
    """Where a norm's gradients will be, and where the library writes them and a and b to."""
    weight, bias = torch.empty(2, into.a.shape[1]).unbind()
    sums = _Sums(into.a.data_ptr(), into.b.data_ptr(), into.a.stride(0), weight.data_ptr(), bias.data_ptr(), add)
    return (weight, bias), sums
