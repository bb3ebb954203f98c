"""Negacyclic number-theoretic transform in SEAL's order: natural in, bit-reversed out, with the smallest primitive 2N-th root.

Stages are taken two at a time (radix 4) over contiguous slices; the three whose butterflies lie within runs of eight entries are
taken together on transposed tiles (`tiles`). The forward transform needs no reduction: 15 stages grow values to about 5p. The
inverse (Gentleman and Sande) reduces one output in four, in tiles one in eight.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he_runtime.kernels.arithmetic import anchor_of, centred, multiply, multiply_constant, reduce
from he_runtime.kernels.compiling import kernel
from he_runtime.kernels.tiles import transpose_tile

Array = NDArray[np.float64]

RUN = 64
"""Runs of eight entries that are transposed together: the 4 KiB that they take stay in the first cache."""
SMALLEST = 8 * RUN
"""Smaller rings, which only encoding uses, take the plain loops."""


@dataclass(frozen=True)
class TransformTables:
    """Twiddle factors of every prime, centred.

    roots: float64 [rows, 2, N/2]: the first half of the powers of the root in bit-reversed order, and of its inverse (all N where
    the ring is too small for tiles).
    tails: float64 [rows, 2, N/512, 7, 64]: those of the last three stages as the tiles read them: for each run of 64 groups of
    eight, one row for the widest butterflies, two and four for the next.
    primes: float64 [rows, 3]: p, 1/p and the anchor of sums of products.
    """

    roots: Array
    tails: Array
    primes: Array

    def forward(self, x: Array, row: int) -> None:
        """Transform x [n] in place modulo one prime."""
        forward(x, self.roots[row, 0], self.tails[row, 0], self.primes[row, 0], self.primes[row, 1])

    def inverse(self, x: Array, row: int, factor: float) -> None:
        """Transform x [N] back in place, times `factor`."""
        inverse(x, x, self.roots[row, 1], self.tails[row, 1], self.primes[row, 0], self.primes[row, 1], factor)


def bit_reversed(length: int) -> NDArray[np.int64]:
    """The bit-reversal permutation of 0..length-1, length a power of two."""
    bits = length.bit_length() - 1
    index = np.arange(length)
    result = np.zeros(length, np.int64)
    for bit in range(bits):
        result = (result << 1) | ((index >> bit) & 1)
    return result


def make_tables(primes: tuple[int, ...], ring_degree: int) -> TransformTables:
    """Tables for all primes."""
    runs = ring_degree // SMALLEST
    kept = ring_degree // 2 if runs else ring_degree
    roots = np.empty((len(primes), 2, kept))
    tails = np.empty((len(primes), 2, runs, 7, RUN))
    order = bit_reversed(ring_degree)
    for row, prime in enumerate(primes):
        root = smallest_root(prime, ring_degree)
        for direction, base in enumerate((root, pow(root, -1, prime))):
            powers = np.empty(ring_degree)
            _powers(float(centred(base, prime)), float(prime), powers)
            powers = powers[order]
            roots[row, direction] = powers[:kept]
            if runs:
                # Group i of `count` groups uses entry count + i: columns 0, 1 to 2 and 3 to 6 of the tails.
                column = 0
                for width in (1, 2, 4):
                    count = ring_degree // 8 * width
                    groups = powers[count : 2 * count].reshape(runs, RUN, width)
                    tails[row, direction, :, column : column + width] = groups.transpose(0, 2, 1)
                    column += width
    return TransformTables(
        roots, tails, np.array([[prime, 1 / prime, anchor_of(prime)] for prime in primes], np.float64)
    )


def smallest_root(prime: int, ring_degree: int) -> int:
    """The smallest primitive 2N-th root of unity, which is SEAL's choice."""
    for generator in range(2, 1000):
        root = pow(generator, (prime - 1) // (2 * ring_degree), prime)
        if pow(root, ring_degree, prime) == prime - 1:
            break
    else:
        raise ValueError(
            f"{prime} has no primitive root of unity of order {2 * ring_degree}: it is not a prime 1 mod that"
        )
    # All primitive roots are the odd powers of one of them.
    powers = np.empty(ring_degree)
    _powers(float(centred(root * root, prime)), float(prime), powers)
    _multiply_all(powers, float(centred(root, prime)), float(prime))
    return int(np.where(powers < 0, powers + prime, powers).min())


@kernel
def _powers(base: float, p: float, out: Array) -> None:
    value = 1.0
    for i in range(out.shape[0]):
        out[i] = value
        value = reduce(multiply(value, base, p, 1.0 / p), p, 1.0 / p)


@kernel
def _multiply_all(x: Array, factor: float, p: float) -> None:
    for i in range(x.shape[0]):
        x[i] = reduce(multiply(x[i], factor, p, 1.0 / p), p, 1.0 / p)


@kernel
def forward(x: Array, roots: Array, tails: Array, p: float, inverse_p: float) -> None:
    """Transform x [n] in place; |x| grows by less than p a stage (by about 5p in all 15, where the input is random).

    roots [N/2], tails [N/512, 7, 64] of one prime and direction. A ring of degree n < N uses a prefix of the roots.
    """
    n = x.shape[0]
    tiled = n == 2 * roots.shape[0]
    remaining = n >> 3 if tiled else n
    groups, half = 1, n >> 1
    if _is_odd_power(remaining):
        _forward_first(x, roots, p, inverse_p)
        groups, half = 2, half >> 1
    _forward_stages(x, roots, tails, groups, half, p, inverse_p)


@kernel
def forward_columns(x: Array, roots: Array, p: float, inverse_p: float) -> None:
    """Transform every column of x [n, columns] in place, n at most N/2: what shares a twiddle factor lies side by side."""
    n, columns = x.shape
    entries = x.reshape(n * columns)
    groups, half = 1, n >> 1
    if _is_odd_power(n):
        _forward_first(entries, roots, p, inverse_p)
        groups, half = 2, half >> 1
    while half >= 2:
        _forward_pair(entries, roots, groups, (half >> 1) * columns, p, inverse_p)
        groups *= 4
        half >>= 2


@kernel
def _forward_first(x: Array, roots: Array, p: float, inverse_p: float) -> None:
    """The first stage alone, where the number of stages is odd."""
    half = x.shape[0] >> 1
    w = roots[1]
    ratio = w * inverse_p
    a, b = x[:half], x[half:]
    for j in range(half):
        t = multiply_constant(b[j], w, ratio, p)
        b[j] = a[j] - t
        a[j] += t


@kernel
def forward_multiple(
    source: Array, factor: float, x: Array, roots: Array, tails: Array, p: float, inverse_p: float
) -> None:
    """x = transform of factor·source, for the full ring [N]; source stays. The factor costs a pass over x less than a product."""
    n = x.shape[0]
    ratio = factor * inverse_p
    if n != 2 * roots.shape[0] or _is_odd_power(n >> 3):
        for i in range(n):
            x[i] = multiply_constant(source[i], factor, ratio, p)
        forward(x, roots, tails, p, inverse_p)
        return
    w1 = reduce(multiply(roots[1], factor, p, inverse_p), p, inverse_p)
    w2, w3 = roots[2], roots[3]
    r1, r2, r3 = w1 * inverse_p, w2 * inverse_p, w3 * inverse_p
    quarter = n >> 2
    s0, s1, s2, s3 = (
        source[:quarter],
        source[quarter : 2 * quarter],
        source[2 * quarter : 3 * quarter],
        source[3 * quarter :],
    )
    a, b, c, d = x[:quarter], x[quarter : 2 * quarter], x[2 * quarter : 3 * quarter], x[3 * quarter :]
    for j in range(quarter):
        a0 = multiply_constant(s0[j], factor, ratio, p)
        a1 = multiply_constant(s1[j], factor, ratio, p)
        t2 = multiply_constant(s2[j], w1, r1, p)
        t3 = multiply_constant(s3[j], w1, r1, p)
        b0 = a0 + t2
        b2 = a0 - t2
        b1 = multiply_constant(a1 + t3, w2, r2, p)
        b3 = multiply_constant(a1 - t3, w3, r3, p)
        a[j] = b0 + b1
        b[j] = b0 - b1
        c[j] = b2 + b3
        d[j] = b2 - b3
    _forward_stages(x, roots, tails, 4, n >> 3, p, inverse_p)


@kernel
def _forward_stages(x: Array, roots: Array, tails: Array, groups: int, half: int, p: float, inverse_p: float) -> None:
    """The stages of `forward` from `groups` groups of 2·half entries on."""
    tiled = x.shape[0] == 2 * roots.shape[0]
    last = 8 if tiled else 2
    while half >= last:
        _forward_pair(x, roots, groups, half >> 1, p, inverse_p)
        groups *= 4
        half >>= 2
    if tiled:
        tile = np.empty(SMALLEST)
        for run in range(tails.shape[0]):
            start = run * SMALLEST
            for k in range(8):
                transpose_tile(x, start + RUN * k, 8, tile, 8 * k, RUN)
            _forward_tile(tile, tails[run], p, inverse_p)
            for k in range(8):
                transpose_tile(tile, 8 * k, RUN, x, start + RUN * k, 8)


@kernel
def _is_odd_power(length: int) -> bool:
    """Whether a power of two has an odd number of stages."""
    odd = False
    while length > 1:
        length >>= 1
        odd = not odd
    return odd


@kernel
def _forward_pair(x: Array, roots: Array, groups: int, quarter: int, p: float, inverse_p: float) -> None:
    """Two stages: `groups` groups of four slices of `quarter` entries."""
    for i in range(groups):
        w1, w2, w3 = roots[groups + i], roots[2 * groups + 2 * i], roots[2 * groups + 2 * i + 1]
        r1, r2, r3 = w1 * inverse_p, w2 * inverse_p, w3 * inverse_p
        base = 4 * quarter * i
        a = x[base : base + quarter]
        b = x[base + quarter : base + 2 * quarter]
        c = x[base + 2 * quarter : base + 3 * quarter]
        d = x[base + 3 * quarter : base + 4 * quarter]
        for j in range(quarter):
            a0, a1 = a[j], b[j]
            t2 = multiply_constant(c[j], w1, r1, p)
            t3 = multiply_constant(d[j], w1, r1, p)
            b0 = a0 + t2
            b2 = a0 - t2
            b1 = multiply_constant(a1 + t3, w2, r2, p)
            b3 = multiply_constant(a1 - t3, w3, r3, p)
            a[j] = b0 + b1
            b[j] = b0 - b1
            c[j] = b2 + b3
            d[j] = b2 - b3


@kernel
def _forward_tile(x: Array, tails: Array, p: float, inverse_p: float) -> None:
    """Three stages of 64 groups of eight, transposed: entry k of group j is x[64k + j]. tails [7, 64]."""
    w = tails.reshape(7 * RUN)
    for j in range(RUN):
        w1, w2, w3 = w[j], w[RUN + j], w[2 * RUN + j]
        w4, w5, w6, w7 = w[3 * RUN + j], w[4 * RUN + j], w[5 * RUN + j], w[6 * RUN + j]
        r1, r2, r3, r4 = w1 * inverse_p, w2 * inverse_p, w3 * inverse_p, w4 * inverse_p
        r5, r6, r7 = w5 * inverse_p, w6 * inverse_p, w7 * inverse_p
        x0, x1, x2, x3 = x[j], x[RUN + j], x[2 * RUN + j], x[3 * RUN + j]
        t4 = multiply_constant(x[4 * RUN + j], w1, r1, p)
        t5 = multiply_constant(x[5 * RUN + j], w1, r1, p)
        t6 = multiply_constant(x[6 * RUN + j], w1, r1, p)
        t7 = multiply_constant(x[7 * RUN + j], w1, r1, p)
        a0, a1, a2, a3 = x0 + t4, x1 + t5, x2 + t6, x3 + t7
        a4, a5, a6, a7 = x0 - t4, x1 - t5, x2 - t6, x3 - t7
        s2, s3 = multiply_constant(a2, w2, r2, p), multiply_constant(a3, w2, r2, p)
        s6, s7 = multiply_constant(a6, w3, r3, p), multiply_constant(a7, w3, r3, p)
        b0, b1, b2, b3 = a0 + s2, a1 + s3, a0 - s2, a1 - s3
        b4, b5, b6, b7 = a4 + s6, a5 + s7, a4 - s6, a5 - s7
        u1, u3 = multiply_constant(b1, w4, r4, p), multiply_constant(b3, w5, r5, p)
        u5, u7 = multiply_constant(b5, w6, r6, p), multiply_constant(b7, w7, r7, p)
        x[j], x[RUN + j], x[2 * RUN + j], x[3 * RUN + j] = b0 + u1, b0 - u1, b2 + u3, b2 - u3
        x[4 * RUN + j], x[5 * RUN + j], x[6 * RUN + j], x[7 * RUN + j] = b4 + u5, b4 - u5, b6 + u7, b6 - u7


@kernel
def inverse(source: Array, x: Array, roots: Array, tails: Array, p: float, inverse_p: float, factor: float) -> None:
    """x = inverse transform of `source` [N], |source| at most 2^49, times `factor` (which should hold 1/N), centred.

    source may be x. roots [N/2], tails [N/512, 7, 64] of one prime's inverse root. Only the full ring is ever transformed back.
    """
    n = x.shape[0]
    tiled = n >= SMALLEST
    if tiled:
        tile = np.empty(SMALLEST)
        for run in range(tails.shape[0]):
            start = run * SMALLEST
            for k in range(8):
                transpose_tile(source, start + RUN * k, 8, tile, 8 * k, RUN)
            _inverse_tile(tile, tails[run], p, inverse_p)
            for k in range(8):
                transpose_tile(tile, 8 * k, RUN, x, start + RUN * k, 8)
    else:
        x[:] = source
    span = 8 if tiled else 1
    groups = n // span
    while groups >= 4:
        _inverse_pair(x, roots, groups >> 1, span, p, inverse_p)
        groups >>= 2
        span <<= 2
    ratio = factor * inverse_p
    if groups == 2:
        w = reduce(multiply(roots[1], factor, p, inverse_p), p, inverse_p)
        r = w * inverse_p
        a, b = x[:span], x[span:]
        for j in range(span):
            u = a[j]
            v = b[j]
            a[j] = reduce(multiply_constant(u + v, factor, ratio, p), p, inverse_p)
            b[j] = reduce(multiply_constant(u - v, w, r, p), p, inverse_p)
    else:
        for j in range(n):
            x[j] = reduce(multiply_constant(x[j], factor, ratio, p), p, inverse_p)


@kernel
def _inverse_pair(x: Array, roots: Array, groups: int, span: int, p: float, inverse_p: float) -> None:
    """Two stages: groups/2 groups of four slices of `span` entries; `groups` butterflies' twiddles come first."""
    half_groups = groups >> 1
    for i in range(half_groups):
        w1, w2, w3 = roots[groups + 2 * i], roots[groups + 2 * i + 1], roots[half_groups + i]
        r1, r2, r3 = w1 * inverse_p, w2 * inverse_p, w3 * inverse_p
        base = 4 * span * i
        a = x[base : base + span]
        b = x[base + span : base + 2 * span]
        c = x[base + 2 * span : base + 3 * span]
        d = x[base + 3 * span : base + 4 * span]
        for j in range(span):
            b0 = a[j] + b[j]
            b1 = multiply_constant(a[j] - b[j], w1, r1, p)
            b2 = c[j] + d[j]
            b3 = multiply_constant(c[j] - d[j], w2, r2, p)
            a[j] = reduce(b0 + b2, p, inverse_p)
            c[j] = multiply_constant(b0 - b2, w3, r3, p)
            b[j] = b1 + b3
            d[j] = multiply_constant(b1 - b3, w3, r3, p)


@kernel
def _inverse_tile(x: Array, tails: Array, p: float, inverse_p: float) -> None:
    """The three stages that undo `_forward_tile`, on tiles as there."""
    w = tails.reshape(7 * RUN)
    for j in range(RUN):
        w1, w2, w3 = w[j], w[RUN + j], w[2 * RUN + j]
        w4, w5, w6, w7 = w[3 * RUN + j], w[4 * RUN + j], w[5 * RUN + j], w[6 * RUN + j]
        r1, r2, r3, r4 = w1 * inverse_p, w2 * inverse_p, w3 * inverse_p, w4 * inverse_p
        r5, r6, r7 = w5 * inverse_p, w6 * inverse_p, w7 * inverse_p
        x0, x1, x2, x3 = x[j], x[RUN + j], x[2 * RUN + j], x[3 * RUN + j]
        x4, x5, x6, x7 = x[4 * RUN + j], x[5 * RUN + j], x[6 * RUN + j], x[7 * RUN + j]
        b0, b2, b4, b6 = x0 + x1, x2 + x3, x4 + x5, x6 + x7
        b1, b3 = multiply_constant(x0 - x1, w4, r4, p), multiply_constant(x2 - x3, w5, r5, p)
        b5, b7 = multiply_constant(x4 - x5, w6, r6, p), multiply_constant(x6 - x7, w7, r7, p)
        a0, a1, a4, a5 = b0 + b2, b1 + b3, b4 + b6, b5 + b7
        a2, a3 = multiply_constant(b0 - b2, w2, r2, p), multiply_constant(b1 - b3, w2, r2, p)
        a6, a7 = multiply_constant(b4 - b6, w3, r3, p), multiply_constant(b5 - b7, w3, r3, p)
        x[j], x[RUN + j] = reduce(a0 + a4, p, inverse_p), a1 + a5
        x[2 * RUN + j], x[3 * RUN + j] = a2 + a6, a3 + a7
        x[4 * RUN + j] = multiply_constant(a0 - a4, w1, r1, p)
        x[5 * RUN + j] = multiply_constant(a1 - a5, w1, r1, p)
        x[6 * RUN + j] = multiply_constant(a2 - a6, w1, r1, p)
        x[7 * RUN + j] = multiply_constant(a3 - a7, w1, r1, p)


def automorphism(galois_element: int, ring_degree: int) -> NDArray[np.uint32]:
    """Permutation of a transformed row under X -> X^g: new[i] = old[permutation[i]].

    Aligned runs of any power of two of entries come from aligned runs of the same length: the high bits of a place are the low
    bits of its exponent, which only low bits of the old exponent decide. (Unsigned: an index that may be negative costs a check.)
    """
    order = bit_reversed(ring_degree)
    exponents = 2 * order + 1  # row entry i is the value at root^(exponents[i])
    return np.asarray(order[((galois_element * exponents) % (2 * ring_degree)) >> 1], np.uint32)
