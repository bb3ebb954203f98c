"""Modular arithmetic in float64: exact products by fused multiply-add.

A residue is a float64 holding an exact integer of absolute value at most a few p, with p below 2**46. For a product, h = fl(a·w)
and l = fma(a, w, -h) give a·w = h + l exactly; q = rint(a·w/p) is off by at most one, so h - q·p is an exact float64 and the
result, h - q·p + l, lies within p of zero. Nothing here may be compiled with fastmath: the formulas need h rounded on its own.
"""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

KERNEL = {"error_model": "numpy", "nogil": True, "boundscheck": False, "cache": True}
INLINE = {"error_model": "numpy", "inline": "always"}


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:  # noqa: ARG001
    """Fused multiply-add: a·b + c with one rounding."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), generate


@intrinsic
def rint(typing_context: Any, a: Any) -> Any:  # noqa: ARG001
    """The nearest integer, ties to even."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        return builder.call(builder.module.declare_intrinsic("llvm.nearbyint", [ir.DoubleType()]), arguments)

    return types.float64(types.float64), generate


@njit(**INLINE)
def multiply_constant(a: float, w: float, w_over_p: float, p: float) -> Any:
    """a·w mod p, |result| about p at most, for a constant w with w/p at hand."""
    h = a * w
    q = rint(a * w_over_p)
    return fma(-q, p, h) + fma(a, w, -h)


@njit(**INLINE)
def multiply(a: float, b: float, p: float, inverse_p: float) -> Any:
    """a·b mod p, |result| about p at most, for two variables."""
    h = a * b
    q = rint(h * inverse_p)
    return fma(-q, p, h) + fma(a, b, -h)


@njit(**INLINE)
def reduce(a: float, p: float, inverse_p: float) -> Any:
    """a mod p, |result| at most p/2."""
    return fma(-rint(a * inverse_p), p, a)


def centred(value: int, p: int) -> int:
    """The representative of value mod p nearest to zero."""
    value %= p
    return value if value <= p // 2 else value - p
