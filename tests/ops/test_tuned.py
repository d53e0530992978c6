"""The tables of measured winners: which entry is found, and that a file is whole or ignored."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from lganet_fast.errors import InputError
from lganet_fast.ops import tuned
from lganet_fast.ops.tuned import Entry, Key

H100, ABOUT = (9, 0), {"card": "made up"}
FAST, SLOW = Entry("native", 3, 10.5), Entry("triton", 4, 20.0)
SMALL, LARGE = Key("convolve", 8, 8, "float16", 16), Key("convolve", 8, 8, "float16", 20)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """An empty shipped folder and an empty one of the user."""
    monkeypatch.setattr(tuned, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(tuned, "_warned", set())
    tuned.forget()
    yield tmp_path / "shipped", tmp_path / "user" / "lganet_fast"
    tuned.forget()


def found(voxels=2**16, capability=H100, inputs=8, type="float16"):
    return tuned.winner("convolve", inputs, 8, type, voxels, capability)


def test_nothing_is_known_without_a_table():
    assert found() is None


def test_exact_key_else_the_nearest_size(folders):
    tuned.record({SMALL: FAST, LARGE: SLOW}, H100, ABOUT, folders[0])
    assert found(2**16) == found(2**16 + 9000) == found(100) == FAST
    assert found(2**20) == found(2**18) == found(2**30) == SLOW
    assert found(2**17) == FAST
    assert found(inputs=16) is None
    assert found(type="bfloat16") is None


def test_the_users_own_comes_first(folders):
    tuned.record({SMALL: FAST, LARGE: FAST}, H100, ABOUT, folders[0])
    path = tuned.record({SMALL: SLOW}, H100, ABOUT)
    assert path == folders[1] / "sm_90.json"
    assert found() == SLOW
    assert found(2**20) == FAST


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((8, 0), None), ((8, 6), FAST), ((8, 7), FAST), ((8, 9), SLOW), ((9, 0), None)],
)
def test_a_card_without_a_table_takes_an_older_one_of_its_generation(folders, capability, expected):
    tuned.record({SMALL: FAST}, (8, 6), ABOUT, folders[0])
    tuned.record({SMALL: SLOW}, (8, 9), ABOUT)
    tuned.record({SMALL: SLOW}, (12, 0), ABOUT)
    assert found(capability=capability) == expected


def test_recording_keeps_other_keys_and_says_where_it_was_measured():
    tuned.record({SMALL: FAST}, H100, ABOUT)
    assert found(2**20) == FAST
    path = tuned.record({LARGE: SLOW}, H100, {"card": "another"})
    assert tuned.read(path) == {SMALL: FAST, LARGE: SLOW}
    assert found(2**20) == SLOW
    assert json.loads(path.read_text())["about"] == {"card": "another"}


@pytest.mark.parametrize(
    ("key", "entry"),
    [
        (SMALL._replace(operation="nothing"), FAST),
        (SMALL._replace(size=1.5), FAST),
        (SMALL, Entry("cuda", 0, 1.0)),
        (SMALL, Entry("native", "first", 1.0)),
        (SMALL, Entry("native", 0, float("nan"))),
    ],
)
def test_nonsense_is_not_recorded(key, entry, folders):
    tuned.record({SMALL: SLOW}, H100, ABOUT)
    with pytest.raises(InputError, match=r"cannot write .*sm_90\.json"):
        tuned.record({key: entry}, H100, ABOUT)
    assert [path.name for path in folders[1].iterdir()] == ["sm_90.json"]
    assert found() == SLOW


GOOD = {**SMALL._asdict(), "path": "native", "config": 0, "us": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"format": 1, "entries": [',
        "[]",
        '{"entries": []}',
        '{"format": 0, "entries": []}',
        json.dumps({"format": 1, "entries": [{}]}),
        json.dumps({"format": 1, "entries": [{**GOOD, "config": -1}]}),
        json.dumps({"format": 1, "entries": [{**GOOD, "inputs": True}]}),
        json.dumps({"format": 1, "entries": [{**GOOD, "type": ["tf32"]}]}),
        json.dumps({"format": 1, "entries": [{**GOOD, "us": "fast"}]}),
    ],
)
def test_a_damaged_table_is_named_once_and_ignored(text, folders):
    tuned.record({SMALL: FAST}, H100, ABOUT, folders[0])
    tuned.record({LARGE: FAST}, H100, ABOUT)
    (folders[1] / "sm_90.json").write_text(text)
    tuned.forget()
    with pytest.warns(UserWarning, match=r"lganet_fast.sm_90\.json is ignored: ") as said:
        assert found() == FAST
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tuned.forget()
        assert found(2**20) == FAST


def test_other_files_are_no_tables(folders):
    folders[1].mkdir(parents=True)
    for name in ("sm_9.json", "sm_90.json.old", ".1234-sm_90.json", "sm_x0.json"):
        (folders[1] / name).write_text("{")
    assert found() is None


def test_importing_reads_no_table():
    """Nor does it ask for a device, or load torch."""
    code = (
        "import sys, pathlib; pathlib.Path.glob = pathlib.Path.read_text = None\n"
        "import lganet_fast, importlib.util as u\n"
        "import types; sys.modules['lganet_fast.ops'] = m = types.ModuleType('lganet_fast.ops')\n"
        "m.__path__ = [lganet_fast.__path__[0] + '/ops']\n"
        "import lganet_fast.ops.tuned; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)


@pytest.mark.parametrize("path", sorted(tuned.SHIPPED.glob("*.json")), ids=lambda p: p.name)
def test_shipped_tables_are_whole(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tuned.read(path)
