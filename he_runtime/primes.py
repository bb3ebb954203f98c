"""Primes that admit a negacyclic number-theoretic transform of length N: p = 1 mod 2N."""

from collections.abc import Iterable

# Enough bases for every number below 3.3e24 (Sorenson and Webster 2015).
_MILLER_RABIN_BASES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


def is_prime(number: int) -> bool:
    """Deterministic Miller-Rabin test, valid below 3.3e24."""
    if number < 2:
        return False
    for base in _MILLER_RABIN_BASES:
        if number % base == 0:
            return number == base
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd //= 2
        twos += 1
    for base in _MILLER_RABIN_BASES:
        power = pow(base, odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


def primes_nearest(bits: int, ring_degree: int, count: int, taken: Iterable[int] = ()) -> tuple[int, ...]:
    """The `count` primes p = 1 mod 2N nearest to 2**bits, each of at most bits+1 bits, none of them in `taken`.

    Nearest on both sides of the power of two, so that a rescale by any of them changes the scale as little as possible.
    """
    step = 2 * ring_degree
    centre = (1 << bits) + 1
    used = set(taken)
    found: list[int] = []
    distance = 0
    while len(found) < count:
        candidates = (centre,) if distance == 0 else (centre - distance * step, centre + distance * step)
        for candidate in candidates:
            if len(found) < count and candidate not in used and is_prime(candidate):
                found.append(candidate)
        distance += 1
        if distance * step >= 1 << (bits - 1):
            raise ValueError(f"there are fewer than {count} primes near 2**{bits} for N={ring_degree}; use more bits")
    return tuple(found)


def primes_below(bits: int, ring_degree: int, count: int, taken: Iterable[int] = ()) -> tuple[int, ...]:
    """The `count` largest primes p = 1 mod 2N of exactly `bits` bits, none of them in `taken`."""
    used = set(taken)
    found: list[int] = []
    candidate = (1 << bits) + 1 - 2 * ring_degree
    while len(found) < count:
        if candidate < 1 << (bits - 1):
            raise ValueError(f"there are fewer than {count} primes of {bits} bits for N={ring_degree}; use more bits")
        if candidate not in used and is_prime(candidate):
            found.append(candidate)
        candidate -= 2 * ring_degree
    return tuple(found)
