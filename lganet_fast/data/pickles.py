"""Pickles of numpy arrays, read without Python's unpickler: the result is only numbers.

A pickle is a program for a small stack machine. `Machine` runs the few instructions that plain
arrays need; numpy's names in a pickle refer to functions of this module, which make arrays from
bytes. Nothing else can be called, and no Python object has its state set.
"""

from __future__ import annotations

import math
import os
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..runtime.reading import reading

MOST = 10_000  # instructions; a few dozen make an array
LONG = 1 << 16  # bytes: a run of this length is an array's data
TYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")  # array types of plain numbers
ORDERS = ("<", ">", "=", "|")


@dataclass
class Made:
    """An array or type that a pickle builds in two steps. value: None before the second step."""

    value: NDArray | np.dtype | None = None


@dataclass(frozen=True)
class Name:
    """A name in a module to which a pickle refers."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def plain_type(text: Any, *_: Any) -> Made:
    """numpy.dtype(text, align, copy): a type of numbers, whose byte order follows later."""
    if not isinstance(text, str) or not TYPE.fullmatch(text):
        raise InputError(f"contains values of type {text!r}, not plain numbers")
    return Made(np.dtype(text))


def ordered_type(made: Made, state: Any) -> None:
    """A type's second step: (version, byte order, None, None, None, -1, -1, flags)."""
    kind = made.value
    fields = state[2:5] if isinstance(state, tuple) and len(state) >= 5 else None
    if not isinstance(kind, np.dtype) or fields != (None, None, None) or state[1] not in ORDERS:
        raise InputError("contains a type other than plain numbers")
    made.value = kind.newbyteorder(state[1])


def array(raw: Any, made: Any, shape: Any, order: str) -> NDArray:
    """Make an array from bytes."""
    if isinstance(shape, int):
        shape = (shape,)
    kind = made.value if isinstance(made, Made) else None
    whole = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not (isinstance(kind, np.dtype) and isinstance(raw, bytes | bytearray) and whole):
        raise InputError("holds an array that is not made of a type, a shape and bytes")
    if math.prod(shape) * kind.itemsize != len(raw):
        raise InputError(f"contains {len(raw)} bytes for an array of shape {shape} of {kind}")
    return np.frombuffer(raw, kind).reshape(shape, order="F" if order == "F" else "C")


def empty_array(*_: Any) -> Made:
    """NumPy's _reconstruct: an array whose type and shape follow later."""
    return Made()


def filled_array(made: Made, state: Any) -> None:
    """An array's second step: (version, shape, type, Fortran order, bytes)."""
    if not isinstance(state, tuple) or len(state) != 5:
        raise InputError("holds an array that is not made of a type, a shape and bytes")
    _, shape, kind, fortran, raw = state
    made.value = array(raw, kind, shape, "F" if fortran else "C")


def buffer_array(raw: Any, kind: Any, shape: Any, order: Any) -> Made:
    """NumPy's _frombuffer: an array from bytes."""
    return Made(array(raw, kind, shape, str(order)))


# By the modules' names before and after NumPy 2.
CORES = ("numpy.core", "numpy._core")
CALLS: dict[Name, Callable[..., Made]] = {
    Name("numpy", "dtype"): plain_type,
    **{Name(f"{core}.multiarray", "_reconstruct"): empty_array for core in CORES},
    **{Name(f"{core}.numeric", "_frombuffer"): buffer_array for core in CORES},
}
ADMITTED = {*CALLS, Name("numpy", "ndarray")}


class Machine:
    """Runs a pickle's instructions. Raises InputError for one that plain arrays do not need."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: Any) -> Any:
        """The pickle's contents; arrays and types are still `Made`."""
        for code, argument, _ in islice(pickletools.genops(file), MOST):
            if code.name == "STOP":
                return self.stack.pop()
            if code.name not in INSTRUCTIONS:
                raise InputError(f"has the instruction {code.name}; only NumPy arrays are allowed")
            INSTRUCTIONS[code.name](self, argument)
        raise InputError(f"has more than {MOST} instructions; only NumPy arrays are allowed")

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def mark(self, _: None) -> None:
        """Record the height of the stack."""
        self.marks.append(len(self.stack))

    def tuple_of(self, count: int) -> None:
        """Replace the last values by a tuple of them."""
        self.push(tuple(self.taken(len(self.stack) - count)))

    def tuple_from_mark(self, _: None) -> None:
        """Replace all values after the mark by a tuple of them."""
        self.push(tuple(self.taken(self.marks.pop())))

    def append(self, _: None) -> None:
        """Append the last value to the list below it."""
        self.extend(self.taken(len(self.stack) - 1))

    def append_from_mark(self, _: None) -> None:
        """Append all values after the mark to the list below them."""
        self.extend(self.taken(self.marks.pop()))

    def remember(self, number: int | str | None) -> None:
        """Keep the last value in the memo."""
        self.memo[len(self.memo) if number is None else int(number)] = self.stack[-1]

    def recall(self, number: int | str) -> None:
        """Push a value of the memo."""
        self.push(self.memo[int(number)])

    def name(self, words: str | None) -> None:
        """Look up a name in a module. Raises InputError for names that arrays do not need."""
        parts = self.taken(len(self.stack) - 2) if words is None else words.split(" ", 1)
        found = Name(*map(str, parts))
        if found not in ADMITTED:
            raise InputError(f"references {found}; only NumPy arrays are allowed")
        self.push(found)

    def call(self, _: None) -> None:
        """Call a function of this module."""
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(arguments, tuple) or called not in CALLS:
            raise InputError(f"calls {called}; only NumPy arrays are allowed")
        self.push(CALLS[called](*arguments))

    def build(self, _: None) -> None:
        """Run the second step of an array or a type."""
        state, made = self.stack.pop(), self.stack[-1]
        if not isinstance(made, Made):
            raise InputError("sets the state of something other than an array")
        (filled_array if made.value is None else ordered_type)(made, state)

    def taken(self, start: int) -> list[Any]:
        """Pop all values of the stack from a position on."""
        if not 0 <= start <= len(self.stack):
            raise EOFError("it pops more values than it has")
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def extend(self, values: list[Any]) -> None:
        """Add to the list on top."""
        if not isinstance(self.stack[-1], list):
            raise InputError("appends to something other than a list")
        self.stack[-1].extend(values)


INSTRUCTIONS: dict[str, Callable[[Machine, Any], None]] = {
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2"), Machine.push),
    **dict.fromkeys(("LONG", "LONG1", "LONG4"), Machine.push),
    **dict.fromkeys(("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), Machine.push),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"), Machine.push),
    **dict.fromkeys(("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"), Machine.remember),
    **dict.fromkeys(("BINGET", "LONG_BINGET", "GET"), Machine.recall),
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL"), Machine.name),
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
    "NONE": Machine.push,
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": Machine.mark,
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "TUPLE": Machine.tuple_from_mark,
    "APPEND": Machine.append,
    "APPENDS": Machine.append_from_mark,
    "REDUCE": Machine.call,
    "BUILD": Machine.build,
}


class _Bounded:
    """A file that is never read beyond its end. skim: long runs are read as zeros."""

    def __init__(self, file: BufferedReader, skim: bool) -> None:
        self.file = file
        self.skim = skim
        self.size = os.fstat(file.fileno()).st_size

    def read(self, count: int) -> bytes:
        if self.file.tell() + count > self.size:
            raise EOFError(f"it ends within a run of {count} bytes")
        if count < LONG or not self.skim:
            return self.file.read(count)
        self.file.seek(count, os.SEEK_CUR)
        return bytes(count)

    def readline(self) -> bytes:
        return self.file.readline()

    def tell(self) -> int:
        return self.file.tell()


def read_arrays(path: str | os.PathLike[str], *, skim: bool = False) -> tuple[NDArray, ...]:
    """Read the arrays, read-only, of a pickle of one array, or of a tuple or list of arrays.

    skim: read only shapes and types, quickly; the values are zeros.
    Raises InputError if the file cannot be read or contains anything other than arrays of plain
    numbers, which the error names and which is not run.
    """
    place, label = Path(path), f"pickle {path}"
    with reading(label):
        if not place.is_file():
            fault = "is not a file" if place.exists() else "does not exist"
            raise InputError(f"{label} {fault}")
        with open(place, "rb") as file:
            try:
                found = Machine().run(_Bounded(file, skim))
            except InputError as error:
                raise InputError(f"{label} {error}") from None
    arrays = []
    for item in found if isinstance(found, tuple | list) else (found,):
        value = item.value if isinstance(item, Made) else item
        if not isinstance(value, np.ndarray):
            raise InputError(f"{label} contains a {type(value).__name__}, not an array")
        arrays.append(value)
    return tuple(arrays)
