"""Modular arithmetic in float64: exact products by fused multiply-add.

A residue is a float64 holding an exact integer of absolute value at most a few p, with p below 2**46. For a product, h = fl(a·w)
and l = fma(a, w, -h) give a·w = h + l exactly; q, a·w/p rounded, is off by at most one, so h - q·p is an exact float64 and the
result, h - q·p + l, lies within p of zero. Nothing here may be compiled with fastmath: the formulas need h rounded on its own.

A sum of products is reduced once, at its end: `accumulate` keeps it as two exact float64 parts, at two multiply-adds a product
where `multiply` takes four, and `settle` reduces it.
"""

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from he_runtime.kernels.compiling import inlined

ROUNDING = 1.5 * 2.0**52
"""Floats from 2^52 to 2^53 are the whole numbers: what is added to the middle of them, up to 2^51, is rounded to one."""
ANCHOR_MARGIN_BITS = 9
"""A settled sum may hold up to 64 products a·w, |w| <= p/2, whose |a| together are at most 2^9 p and at most 2^52."""


def anchor_of(prime: int) -> float:
    """Where `accumulate` starts a sum: 1.5·2^k, so that the sum stays between 2^k and 2^(k+1), where floats are 2^(k-52) apart.

    With p below 2^b and k = 2b + 9, the sum of |a·w| <= 2^9·p·p/2 stays below 2^(k-1); the low parts, each at most 2^(k-53), are
    exact in sum for 64 products: 2^(6 + 2·45 + 9 - 53) = 2^52 at the largest b, 45. A sum that goes on from a settled one counts
    that one's size too, so results that are summed again are reduced first.
    """
    return anchor_for(2.0 ** (2 * prime.bit_length() + ANCHOR_MARGIN_BITS - 1))


def anchor_for(largest_sum: float) -> float:
    """Where `accumulate` starts a sum of products that stays within ±largest_sum: in the middle of a power of two twice as large.

    For sums whose a's are of larger primes than p, which `anchor_of` does not allow for. The low parts, each at most
    largest_sum·2^-51, must stay exact in sum too: below 2^53, which a few dozen products of 45 bits by 45 are far from.
    """
    return float(1.5 * 2.0 ** (math.ceil(math.log2(largest_sum)) + 1))


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


@inlined
def nearest_product(a: float, b: float) -> Any:
    """The integer nearest to a·b, |a·b| at most 2^51.

    A multiply-add and a subtraction, where a product and a rounding take an Intel processor three steps: transforms of N=65536
    went from 310 to 170 µs by it (Emerald Rapids, one thread).
    """
    return fma(a, b, ROUNDING) - ROUNDING


@inlined
def multiply_constant(a: float, w: float, w_over_p: float, p: float) -> Any:
    """a·w mod p, |result| below p, for a constant w with w/p at hand."""
    h = a * w
    q = nearest_product(a, w_over_p)
    return fma(-q, p, h) + fma(a, w, -h)


@inlined
def multiply(a: float, b: float, p: float, inverse_p: float) -> Any:
    """a·b mod p, |result| about p at most, for two variables."""
    h = a * b
    q = nearest_product(h, inverse_p)
    return fma(-q, p, h) + fma(a, b, -h)


@inlined
def reduce(a: float, p: float, inverse_p: float) -> Any:
    """a mod p, |result| at most p/2."""
    return fma(-nearest_product(a, inverse_p), p, a)


@inlined
def accumulate(high: float, low: float, a: float, w: float) -> Any:
    """(high, low) + a·w, exactly; high starts at an anchor (`anchor_of`, `anchor_for`), low at 0.

    Next to the anchor all floats are multiples of one power of two, so the rounded sum and its difference to the one before are
    exact; what the rounding lost is a·w minus that difference, which one more multiply-add gives exactly.
    """
    total = fma(a, w, high)
    return total, low + fma(a, w, high - total)


@inlined
def settle(high: float, low: float, anchor: float, p: float, inverse_p: float) -> Any:
    """The accumulated sum modulo p, not fully reduced: |result| at most 3p plus |low|. |high - anchor| at most 2^51·p."""
    h = high - anchor
    return fma(-nearest_product(h, inverse_p), p, h) + low


def centred(value: int, p: int) -> int:
    """The representative of value mod p nearest to zero."""
    value %= p
    return value if value <= p // 2 else value - p
