"""What all kernels share: rounding, products, and a way around what Triton's interpreter does otherwise than a GPU.

The interpreter cuts bfloat16 off where a GPU rounds to nearest, and multiplies its bit patterns as whole numbers. With
the two functions here the same kernel gives the numbers of a GPU there, so what CI tests is what will run.
"""

import triton
import triton.language as tl
from triton import knobs

INTERPRETED = tl.constexpr(bool(knobs.runtime.interpret))
"""Whether kernels run in Triton's interpreter, on a CPU (TRITON_INTERPRET=1)."""


@triton.jit
def rounded(values, dtype: tl.constexpr):
    """float32 values in another type, rounded to nearest, ties to even."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = values.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        values = tl.where(values == values, bits.to(tl.float32, bitcast=True), values)
    return values.to(dtype)


@triton.jit
def multiply_add(left, right, total, PRECISION: tl.constexpr):
    """total + left @ right, added in float32. PRECISION: "ieee" or "tf32", of factors in float32."""
    if INTERPRETED:
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    return tl.dot(left, right, total, input_precision=PRECISION)
