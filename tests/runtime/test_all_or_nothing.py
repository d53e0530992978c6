"""A folder of results is replaced as a whole or not at all, also by processes that are killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from lganet_fast.errors import InputError
from lganet_fast.runtime import files
from lganet_fast.runtime.files import atomic, check_no_input, staged_folder
from lganet_fast.runtime.leftovers import DAY, HOST

NAMES = ("a", "b", "c")


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def fill(folder, word, names=NAMES):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(word)


def stage(out, word="new", names=NAMES, **options):
    with staged_folder(out, NAMES, **options) as folder:
        fill(folder, word, names)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_in_the_place_of_a_file(tmp_path, name):
    out = tmp_path / "out"
    fill(out, "old")
    (out / name).unlink()
    (out / name).mkdir()
    with pytest.raises(InputError, match=f"{name}: it is a folder"), staged_folder(out, NAMES):
        pytest.fail("it is known before the work")
    with pytest.raises(InputError, match=f"{name}: it is a folder"), staged_folder(out) as folder:
        fill(folder, "new")
    assert {p.read_text() for p in out.iterdir() if p.is_file()} == {"old"}


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("failure", [OSError(errno.EIO, "x"), KeyboardInterrupt()])
def test_a_move_that_fails_is_taken_back(tmp_path, monkeypatch, number, failure):
    out = tmp_path / "out"
    fill(out, "old", ("a", "b", "mine"))
    real, calls = os.replace, []

    def failing(here, there):
        calls.append(here)
        if len(calls) == number + 1:
            raise failure
        real(here, there)

    monkeypatch.setattr(files.os, "replace", failing)
    if number > 5:  # two old files aside, that folder's name, three new ones
        stage(out)
        assert contents(out) == {**dict.fromkeys(NAMES, "new"), "mine": "old"}
        return
    with pytest.raises((InputError, KeyboardInterrupt)):
        stage(out)
    assert contents(out) == dict.fromkeys(("a", "b", "mine"), "old")


KILLED = """
import os, sys
from lganet_fast import files
real, left = os.replace, [int(sys.argv[2])]
def dying(here, there):
    if not left[0]:
        os.kill(os.getpid(), 9)
    left[0] -= 1
    real(here, there)
files.os.replace = dying
with files.staged_folder(sys.argv[1], ("a", "b", "c")) as folder:
    for name in "abc":
        (folder / name).write_text("new")
"""


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5])
def test_a_move_that_is_killed_is_put_in_order_by_the_next_run(tmp_path, number):
    out = tmp_path / "out"
    fill(out, "old", ("a", "b"))
    done = subprocess.run([sys.executable, "-c", KILLED, out, str(number)], check=False)
    assert done.returncode == -signal.SIGKILL
    visible = {path.read_text() for path in out.iterdir() if path.is_file()}
    assert len(visible) <= 1, "old files beside new ones"
    with pytest.raises(ZeroDivisionError), staged_folder(out, NAMES):
        raise ZeroDivisionError
    expected = dict.fromkeys("ab", "old") if number < 3 else dict.fromkeys("abc", "new")
    assert contents(out) == expected


def test_leftovers_go_and_what_is_at_work_stays(tmp_path):
    out, target = tmp_path / "out", tmp_path / "t.nii"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        for name in ("out", "t.nii"):
            for number in (dead.pid, alive.pid):
                (tmp_path / f".{HOST}-{number:x}-0123abcd-{name}").write_text("")
        for age in (0, 2 * DAY):  # of another machine
            path = tmp_path / f".00000000-1-{age:08x}-out"
            path.write_text("")
            os.utime(path, (time.time() - age,) * 2)
        (tmp_path / ".mine-out").write_text("")
        stage(out)
        with atomic(target) as temporary:
            temporary.write_text("")
        left = {path.name for path in tmp_path.iterdir()} - {"out", "t.nii"}
        still = {f".{HOST}-{alive.pid:x}-0123abcd-{name}" for name in ("out", "t.nii")}
        assert left == {".mine-out", ".00000000-1-00000000-out", *still}
    finally:
        alive.communicate(b"\n")


def test_two_writers_of_one_process_do_not_disturb_each_other(tmp_path):
    with atomic(tmp_path / "a") as one:
        one.write_text("one")
        with atomic(tmp_path / "a") as two:
            two.write_text("two")
        assert (tmp_path / "a").read_text() == "two"
    assert contents(tmp_path) == {"a": "one"}


def test_results_that_would_be_lost_are_refused(tmp_path):
    out = tmp_path / "out"
    fill(out, "old")
    with pytest.raises(InputError, match=r"contains c of an earlier run, .* --overwrite"):
        stage(out, names=("a", "b"), expected=("a", "b"))
    assert contents(out) == dict.fromkeys(NAMES, "old")
    stage(out, names=("a", "b"))
    assert contents(out) == dict.fromkeys("ab", "new")


def test_an_input_is_not_overwritten(tmp_path):
    out = tmp_path / "out"
    fill(out, "old")
    (tmp_path / "link").symlink_to(out / "b")
    with pytest.raises(InputError, match=r"out/b: it is an input, .*link"):
        stage(out, inputs=[tmp_path / "none", tmp_path / "link"])
    assert contents(out) == dict.fromkeys(NAMES, "old")
    with pytest.raises(InputError, match="it is an input"):
        check_no_input(out / "b", [out / "b"])


def test_a_disk_that_goes_away_is_one_line(tmp_path, monkeypatch):
    def gone(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files.Path, "unlink", gone)
    with pytest.raises(InputError, match="Read-only"), atomic(tmp_path / "a"):
        gone()
