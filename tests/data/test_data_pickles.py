"""Pickles are read for their arrays and run nothing."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
from collections import OrderedDict

import numpy as np
import pytest

from lganet_fast import InputError
from lganet_fast.data.pickles import read_arrays


class Runs:
    """What a pickle can make a careless reader do."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


IMAGE = np.arange(60000, dtype=np.float32).reshape(20, 50, 60)
LABELS = (IMAGE.astype(np.int16) % 7).T  # not in C order


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("kind", [tuple, list])
def test_reads_what_numpy_wrote(tmp_path, protocol, kind):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(kind((IMAGE, LABELS)), protocol))
    for found, written in zip(read_arrays(path), (IMAGE, LABELS), strict=True):
        np.testing.assert_array_equal(found, written)
        assert found.dtype == written.dtype
    path.write_bytes(pickle.dumps(IMAGE, protocol))
    np.testing.assert_array_equal(read_arrays(path)[0], IMAGE)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_skims_shapes_and_types(tmp_path, protocol):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps((IMAGE, LABELS), protocol))
    found = read_arrays(path, skim=True)
    assert [(x.shape, x.dtype) for x in found] == [(x.shape, x.dtype) for x in (IMAGE, LABELS)]
    assert not found[0].any()


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_reads_either_name_of_numpys_core(tmp_path, core):
    path = tmp_path / "a.pkl"
    raw = pickle.dumps(IMAGE, 3)
    own = b"cnumpy._core.multiarray" if b"numpy._core" in raw else b"cnumpy.core.multiarray"
    assert own in raw
    path.write_bytes(raw.replace(own, f"c{core}.multiarray".encode()))
    np.testing.assert_array_equal(read_arrays(path)[0], IMAGE)


@pytest.mark.parametrize(
    ("thing", "asked"),
    [
        (Runs(os.system, "touch {}"), f"{os.name}.system"),
        (Runs(eval, "open({!r}, 'w')"), "builtins.eval"),
        (Runs(subprocess.check_call, "touch {}", 0), "subprocess.check_call"),
        (Runs(np.load, "{}"), "numpy.load"),
        (Runs(getattr, "{}", "upper"), "builtins.getattr"),
        (OrderedDict(a=1), "collections.OrderedDict"),
    ],
)
@pytest.mark.parametrize("skim", [False, True])
def test_names_what_a_malicious_pickle_asks_for_and_does_not_run_it(tmp_path, thing, asked, skim):
    mark = tmp_path / "mark"
    if isinstance(thing, Runs):
        texts = (x.format(str(mark)) if isinstance(x, str) else x for x in thing.arguments)
        thing = Runs(thing.call, *texts)
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps((IMAGE, thing)))
    with pytest.raises(InputError, match=rf"a\.pkl references {asked}; only NumPy"):
        read_arrays(path, skim=skim)
    assert not mark.exists()


def test_an_array_of_objects_cannot_bring_one_in(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(np.array([Runs(os.system, "true")], object)))
    with pytest.raises(InputError, match="values of type 'O8', not plain numbers"):
        read_arrays(path)


def named(module, name):
    return f"c{module}\n{name}\n".encode()


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def dtype(kind, order="<", flags=b"K\x00"):
    """numpy.dtype(kind, False, True) with its state set."""
    state = b"(K\x03" + text(order) + b"NNN" + b"J\xff\xff\xff\xff" * 2 + flags + b"t"
    return named("numpy", "dtype") + text(kind) + b"\x89\x88\x87R" + state + b"b"


def array(kind, shape=b"K\x04\x85", raw=bytes(32)):
    """numpy._core.numeric._frombuffer(raw, dtype, shape, "C")."""
    arguments = b"B" + struct.pack("<I", len(raw)) + raw + kind + shape + text("C")
    return named("numpy._core.numeric", "_frombuffer") + b"(" + arguments + b"tR"


STATE = b"}" + text("__defaults__") + b"NsN\x86b"  # sets attributes of what lies on the stack
FORGED = {
    "objects without their flag": (array(dtype("O")), "values of type 'O'"),
    "objects by the byte order": (array(dtype("f8", "O")), "a type other than plain numbers"),
    "pointers to text": (array(dtype("U2")), "values of type 'U2'"),
    "records": (array(dtype("f8,O")), "values of type 'f8,O'"),
    "more than its bytes": (array(dtype("f8"), b"K\x05\x85"), "32 bytes for an array of shape"),
    "a negative size": (array(dtype("f8"), b"J\xfc\xff\xff\xff\x85"), "a type, a shape and bytes"),
    "an overflowing size": (
        array(dtype("f8"), b"\x8a\x09" + bytes(8) + b"\x01\x85"),
        "32 bytes for",
    ),
    "numpy.ndarray called": (
        named("numpy", "ndarray") + b"K\x04\x85" + dtype("f8") + b"\x86R",
        r"calls numpy\.ndarray",
    ),
    "state of a function": (named("numpy", "dtype") + STATE, "instruction EMPTY_DICT"),
    "state of a number": (b"K\x01(tb", "state of something other than an array"),
    "a memo of 64 GB": (b"K\x01r\xff\xff\xff\xff" + array(dtype("f8")), None),
    "bytes that are not there": (b"\x8e" + struct.pack("<Q", 1 << 40), "cannot be read: it ends"),
    "an endless list": (b"](" + b"K\x01" * 20000 + b"e", "more than 10000 instructions"),
    "an empty stack": (b"0", "only NumPy arrays are allowed"),
    "a stack too small": (b"\x87", "pops more values than it has"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_pickle_is_one_line_and_takes_no_memory(tmp_path, name):
    body, message = FORGED[name]
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x04" + body + b".")
    if message is None:
        assert read_arrays(path)[0].shape == (4,)
        return
    with pytest.raises(InputError, match=message) as caught:
        read_arrays(path)
    assert len(str(caught.value)) <= 300


def test_arrays_that_share_a_type_or_are_the_same(tmp_path):
    path = tmp_path / "a.pkl"
    swapped = IMAGE.astype(">f4")
    path.write_bytes(pickle.dumps([swapped, swapped, IMAGE.astype(">f4")[:3], IMAGE > 3]))
    found = read_arrays(path)
    for one, written in zip(found, (swapped, swapped, swapped[:3], IMAGE > 3), strict=True):
        np.testing.assert_array_equal(one, written)
        assert one.dtype == written.dtype


@pytest.mark.parametrize("skim", [False, True])
@pytest.mark.parametrize("keep", [0, 1, 100, 5000, -1])
def test_damaged_files_are_one_clear_line(tmp_path, keep, skim):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps((IMAGE, LABELS))[:keep])
    with pytest.raises(InputError, match=r"a\.pkl cannot be read: ") as caught:
        read_arrays(path, skim=skim)
    assert "\n" not in str(caught.value)


def test_refuses_what_is_no_array_or_no_file(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps((IMAGE, "labels")))
    with pytest.raises(InputError, match=r"a\.pkl contains a str, not an array"):
        read_arrays(path)
    with pytest.raises(InputError, match=r"b\.pkl does not exist"):
        read_arrays(tmp_path / "b.pkl")
    with pytest.raises(InputError, match="is not a file"):
        read_arrays(tmp_path)
