"""How a whole file is damaged: flipped bits, cuts, junk, and numbers that headers do not expect."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable

import numpy as np

Mutation = Callable[[bytes, np.random.Generator], bytes]
NUMBERS = (
    *(
        struct.pack(f"<{kind}", x)
        for kind, x in (("h", -1), ("h", 0), ("h", 32767), ("i", -(2**31)))
    ),
    *(struct.pack(">i", x) for x in (-1, 0, 2**31 - 1)),
    *(struct.pack("<f", x) for x in (np.nan, np.inf, -np.inf, 3.4e38, 0.0)),
    struct.pack("<d", 1e300),
    struct.pack("<q", -1),
    struct.pack("<Q", 2**63),
)
WORDS = (
    b"nan",
    b"1e999",
    b"-1",
    b'"',
    b"\x00",
    b"\xff",
    b"[" * 3000,
    b"9" * 5000,
    b"\n",
    b",",
    b"\\u0000",
)


def flip(data: bytes, random: np.random.Generator) -> bytes:
    """One to four flipped bits."""
    out = bytearray(data)
    for place in random.integers(0, len(out), random.integers(1, 5)):
        out[place] ^= 1 << int(random.integers(8))
    return bytes(out)


def cut(data: bytes, random: np.random.Generator) -> bytes:
    """Without its end."""
    return data[: random.integers(0, len(data))]


def grow(data: bytes, random: np.random.Generator) -> bytes:
    """With junk after its end, or with itself."""
    return data + (data if random.random() < 0.2 else random.bytes(int(random.integers(1, 40))))


def number(data: bytes, random: np.random.Generator) -> bytes:
    """An odd number somewhere, mostly in the first 512 bytes, where headers are."""
    value = NUMBERS[random.integers(len(NUMBERS))]
    last = min(len(data), 512) if random.random() < 0.8 else len(data)
    place = int(random.integers(0, max(1, last - len(value))))
    return data[:place] + value + data[place + len(value) :]


def word(data: bytes, random: np.random.Generator) -> bytes:
    """Odd text in the place of a byte."""
    place = int(random.integers(0, len(data)))
    return data[:place] + WORDS[random.integers(len(WORDS))] + data[place + 1 :]


def lose(data: bytes, random: np.random.Generator) -> bytes:
    """A run of bytes gone, doubled, or zero."""
    start, end = sorted(random.integers(0, len(data) + 1, 2))
    middle = (b"", data[start:end] * 2, bytes(end - start))[random.integers(3)]
    return data[:start] + middle + data[end:]


def inside(data: bytes, random: np.random.Generator) -> bytes:
    """Damage within what gzip holds, packed again so that its checksum is right."""
    try:
        content = gzip.decompress(data)
    except (OSError, EOFError):
        return flip(data, random)
    change = (number, flip, cut, lose)[random.integers(4)]
    return gzip.compress(change(content, random), 1)


MUTATIONS: tuple[Mutation, ...] = (flip, cut, grow, number, word, lose, inside)
