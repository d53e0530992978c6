"""Some hundred damaged files for every reader; `python -m tests.fuzz` tries any number of them."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections import Counter

import numpy as np
from fuzz.__main__ import FAULTS, ROOM, fuzz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lganet_fast import config
from lganet_fast.data.pickles import read_arrays
from lganet_fast.errors import LONGEST, InputError
from lganet_fast.runtime.csv_files import read_rows
from lganet_fast.transforms.codecs import NPZ_KEYS
from lganet_fast.transforms.field import DisplacementField
from lganet_fast.volumes.points import read_table

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def test_no_reader_fails_hangs_or_reads_another_thing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where inputs that come to a fault are kept
    table, grown = fuzz(500, seed=1, quiet=True)
    total = sum(table.values(), Counter())
    assert {name: total[name] for name in FAULTS} == dict.fromkeys(FAULTS, 0)
    assert total["refused"] > 200
    assert grown < ROOM


def attempt(read, content, ending):
    """What a reader makes of a file, None where it refuses it as it should."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x" + ending)
        with open(path, "wb") as file:
            file.write(content) if isinstance(content, bytes) else content(file)
        try:
            return read(path)
        except InputError as error:
            message = str(error)
    assert len(message) <= LONGEST
    assert message.isprintable()
    return None


SHAPES = hnp.array_shapes(min_dims=0, max_dims=5, max_side=4)
DTYPES = st.one_of(hnp.scalar_dtypes(), hnp.unicode_string_dtypes(), hnp.array_dtypes())
ARRAYS = hnp.arrays(DTYPES, SHAPES)


@QUICK
@given(st.dictionaries(st.sampled_from([*NPZ_KEYS, "arr_0"]), ARRAYS))
def test_arrays_of_any_type_as_a_transform(arrays):
    found = attempt(DisplacementField.load, lambda file: np.savez(file, **arrays), ".npz")
    assert found is None or np.isfinite(found.displacement).all()


@QUICK
@given(st.one_of(ARRAYS, st.lists(ARRAYS), st.tuples(ARRAYS, ARRAYS)), st.integers(0, 5))
def test_pickles_of_arrays_of_any_type(things, protocol):
    found = attempt(read_arrays, pickle.dumps(things, protocol), ".pkl")
    for one, other in zip(
        found or (), things if isinstance(things, list | tuple) else (things,), strict=False
    ):
        assert one.dtype.kind in "biuf"
        np.testing.assert_array_equal(one, other)


@QUICK
@given(
    st.one_of(
        st.binary(), st.text().map(str.encode), st.text('0123456789.,-eE\n"xyz').map(str.encode)
    )
)
def test_any_text_as_a_table_or_a_configuration(content):
    attempt(read_table, content, ".csv")
    attempt(read_table, b"x,y,z\n" + content, ".csv")
    attempt(lambda path: read_rows(path, ("x",)), b"x,y\n" + content, ".csv")
    attempt(config.load, content, ".toml")
    attempt(config.load, b"[data]\nlayout = 'pairs'\n" + content, ".toml")
