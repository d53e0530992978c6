"""One bar for all: in a terminal, and as log lines elsewhere."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from lganet_fast.runtime import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    def put():
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return put


def run(quiet=False, **options):
    with progress.Progress(4, "pairs", quiet, **options) as bar:
        for done in range(5):
            bar.at(done, f"pair {done}")
        bar.bar.refresh()


def test_a_terminal_shows_a_bar(terminal):
    stream = terminal()
    run()
    last = stream.getvalue().rstrip().rpartition("\r")[2]
    assert last.startswith("pairs 100%|")
    assert "4/4" in last
    assert last.endswith("pair 4")


def test_numbers_that_say_nothing_are_left_out(terminal):
    stream = terminal()
    run(counted=False)
    assert "100%" in stream.getvalue()
    assert "4/4" not in stream.getvalue()


def test_quiet_shows_nothing_anywhere(terminal, caplog):
    caplog.set_level(logging.DEBUG, "lganet_fast")
    stream = terminal()
    run(quiet=True)
    assert (stream.getvalue(), caplog.messages) == ("", [])


def test_no_terminal_gets_a_line_now_and_then(capsys, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG, "lganet_fast")
    run()
    assert caplog.messages == ["pairs: 0%, pair 0", "pairs: 100%, pair 4"]
    monkeypatch.setattr(progress, "EVERY", 0.0)
    run()
    assert caplog.messages[2:] == [f"pairs: {25 * n}%, pair {n}" for n in range(5)]
    assert capsys.readouterr().err == ""


def test_what_is_said_beside_a_bar_has_a_line_of_its_own(terminal):
    stream = terminal()
    with progress.Progress(4, "pairs", False) as bar:
        bar.at(1)
        bar.bar.refresh()
        with progress.beside_bars():
            print("said", file=sys.stderr)
    assert "\rsaid\n" in stream.getvalue()
