"""SEAL's uniform residues from a 64-byte seed, bit for bit: the `a` rows of seeded ciphertexts and keys.

SEAL fills a 4096-byte buffer at a time: buffer number k is BLAKE2Xb (Aumasson et al. 2016, "BLAKE2X") of the eight
bytes of k, keyed by the seed. BLAKE2Xb hashes once to a root of 64 bytes and then hashes that root again as node
0, 1, ... 63, each giving 64 bytes of output. Words are read from this stream and reduced modulo p; a word that would
make the residue uneven is drawn again from the stream's continuation (SEAL, native/src/seal/util/rlwe.cpp,
`sample_poly_uniform`).

The roots come from hashlib. The nodes, 64 times more work, are hashed here side by side so that the loop vectorises.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from he_runtime.kernels.compiling import inlined, kernel

SEED_BYTES = 64
_BUFFER_BYTES = 4096
_NODES = 64
_WORDS_PER_BUFFER = _BUFFER_BYTES // 8

# The message schedule and the initial values of BLAKE2b (RFC 7693, sections 2.6 and 2.7).
_SCHEDULE = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
        [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
        [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
        [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
        [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
        [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
        [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
        [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
        [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    ]
)
_INITIAL = np.array(
    [
        0x6A09E667F3BCC908,
        0xBB67AE8584CAA73B,
        0x3C6EF372FE94F82B,
        0xA54FF53A5F1D36F1,
        0x510E527FADE682D1,
        0x9B05688C2B3E6C1F,
        0x1F83D9ABFB41BD6B,
        0x5BE0CD19137E2179,
    ],
    dtype=np.uint64,
)

# The parameter block of one BLAKE2X node, as words 0 and 2 (word 1 also holds the node's number):
# digest and leaf length 64, fanout and depth 0; node depth 0 and inner length 64; total output length 4096.
_NODE_WORD_0 = np.uint64(64 | 64 << 32)
_NODE_WORD_1 = np.uint64(_BUFFER_BYTES << 32)
_NODE_WORD_2 = np.uint64(64 << 8)


@inlined
def _rotate_right(word, count):  # type: ignore[no-untyped-def]
    return (word >> np.uint64(count)) | (word << np.uint64(64 - count))


@kernel
def _mix(a_row, b_row, c_row, d_row, x, y):  # type: ignore[no-untyped-def]
    """The function G of BLAKE2b (RFC 7693, section 3.1) on 64 nodes at once: they share the message words x and y."""
    for i in range(a_row.shape[0]):
        a = a_row[i] + b_row[i] + x
        d = _rotate_right(d_row[i] ^ a, 32)
        c = c_row[i] + d
        b = _rotate_right(b_row[i] ^ c, 24)
        a = a + b + y
        d = _rotate_right(d ^ a, 16)
        c = c + d
        b = _rotate_right(b ^ c, 63)
        a_row[i] = a
        b_row[i] = b
        c_row[i] = c
        d_row[i] = d


@kernel
def _expand_roots(roots, out):  # type: ignore[no-untyped-def]
    """roots uint64 [buffers, 8] -> out uint64 [buffers, 64 nodes, 8 words]."""
    v = np.empty((16, _NODES), np.uint64)
    start = np.empty((8, _NODES), np.uint64)
    message = np.zeros(16, np.uint64)
    for i in range(8):
        for node in range(_NODES):
            start[i, node] = _INITIAL[i]
    for node in range(_NODES):
        start[0, node] ^= _NODE_WORD_0
        start[1, node] ^= np.uint64(node) | _NODE_WORD_1
        start[2, node] ^= _NODE_WORD_2
    for buffer in range(roots.shape[0]):
        message[:8] = roots[buffer]
        for i in range(8):
            v[i] = start[i]
            for node in range(_NODES):
                v[8 + i, node] = _INITIAL[i]
        for node in range(_NODES):
            v[12, node] ^= np.uint64(64)  # bytes hashed so far
            v[14, node] = ~v[14, node]  # last block
        for turn in range(12):
            s = _SCHEDULE[turn]
            _mix(v[0], v[4], v[8], v[12], message[s[0]], message[s[1]])
            _mix(v[1], v[5], v[9], v[13], message[s[2]], message[s[3]])
            _mix(v[2], v[6], v[10], v[14], message[s[4]], message[s[5]])
            _mix(v[3], v[7], v[11], v[15], message[s[6]], message[s[7]])
            _mix(v[0], v[5], v[10], v[15], message[s[8]], message[s[9]])
            _mix(v[1], v[6], v[11], v[12], message[s[10]], message[s[11]])
            _mix(v[2], v[7], v[8], v[13], message[s[12]], message[s[13]])
            _mix(v[3], v[4], v[9], v[14], message[s[14]], message[s[15]])
        for i in range(8):
            for node in range(_NODES):
                out[buffer, node, i] = start[i, node] ^ v[i, node] ^ v[8 + i, node]


@kernel
def _reduce_rows(words, primes, limits, rejected):  # type: ignore[no-untyped-def]
    """Reduce words [rows, N] in place; positions of words at or above their row's limit go to `rejected`.

    Returns how many were rejected, which may exceed what `rejected` has room for.
    """
    count = 0
    for row in range(words.shape[0]):
        p = primes[row]
        limit = limits[row]
        for i in range(words.shape[1]):
            word = words[row, i]
            if word >= limit:
                if count < rejected.shape[0]:
                    rejected[count] = row * words.shape[1] + i
                count += 1
            words[row, i] = word % p
    return count


def blake2xb_stream(seed: bytes, first_buffer: int, buffers: int) -> NDArray[np.uint64]:
    """Words of SEAL's Blake2xb generator: uint64 [buffers · 512], from buffer number `first_buffer` on."""
    roots = b"".join(
        hashlib.blake2b(
            (first_buffer + i).to_bytes(8, "little"),
            digest_size=64,
            key=seed,
            node_offset=_BUFFER_BYTES << 32,  # BLAKE2X keeps the output length in this half of the field
        ).digest()
        for i in range(buffers)
    )
    out = np.empty((buffers, _NODES, 8), np.uint64)
    _expand_roots(np.frombuffer(roots, np.uint64).reshape(buffers, 8), out)
    return out.reshape(-1)


def expand_uniform(seed: bytes, primes: Sequence[int], ring_degree: int) -> NDArray[np.uint64]:
    """The residues that SEAL draws from a seed: uint64 [len(primes), N], each row below its prime.

    The rows depend on each other through rejected words, so ask for the full list of primes and keep the rows you need.
    Raises ValueError when the seed is not 64 bytes.
    """
    if len(seed) != SEED_BYTES:
        raise ValueError(f"the seed has {len(seed)} bytes; SEAL's seeds have {SEED_BYTES}")
    count = len(primes) * ring_degree
    buffers = -(-count // _WORDS_PER_BUFFER)
    stream = blake2xb_stream(seed, 0, buffers)
    rows = stream[:count].reshape(len(primes), ring_degree)
    # SEAL accepts words below the largest multiple of p under 2**64 - 1 (less one), so that every residue is as likely.
    largest = 2**64 - 1
    limits = np.array([largest - largest % p - 1 for p in primes], np.uint64)
    continuation = _words_from(seed, buffers, stream[count:].copy())
    # A word is rejected with probability below 2**-18 (p < 2**46): 4096 places are far more than any row set fills.
    rejected = np.empty(4096, np.int64)
    found = _reduce_rows(rows, np.array(primes, np.uint64), limits, rejected)
    if found > len(rejected):
        raise ValueError(
            f"{found} words rejected: primes {primes} are too large for this generator; expected under 2**46"
        )
    flat = rows.reshape(-1)
    for position in rejected[:found]:
        row = int(position) // ring_degree
        flat[position] = next(word for word in continuation if word < int(limits[row])) % primes[row]
    return rows


def _words_from(seed: bytes, next_buffer: int, pending: NDArray[np.uint64]) -> Iterator[int]:
    """The words left in the last buffer, then those of the buffers that follow."""
    yield from pending.tolist()
    while True:
        yield from blake2xb_stream(seed, next_buffer, 1).tolist()
        next_buffer += 1
