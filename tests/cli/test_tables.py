"""Tables of commands: aligned text, and drawn in a terminal."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from lganet_fast.cli import main, tables
from lganet_fast.cli.tables import Table

ROWS = [("Label", "Dice"), ("2", "0.5000"), ("[bold]17", "nan")]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def shown(monkeypatch):
    def run(act):
        stream = Terminal()
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setenv("COLUMNS", "60")
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("TERM", "dumb")
        act()
        return stream.getvalue()

    return run


def test_numbers_are_flush_right():
    expected = ["Label       Dice", "2         0.5000", "[bold]17     nan"]
    assert Table(ROWS, numbers=True).text().splitlines() == expected


def test_columns_have_their_least_widths_and_no_line_ends_in_spaces():
    assert Table([("a", "b"), ("c", "")], least=(4,)).text() == "a     b\nc"


def test_the_last_column_is_wrapped_under_itself():
    lines = Table([("name", "word " * 40)], wrapped=True).text().splitlines()
    assert [line.startswith(("name  word", "      word")) for line in lines] == [True] * 3
    assert max(map(len, lines)) <= tables.WIDTH


def test_a_terminal_gets_a_drawn_table_with_the_text_as_it_is(shown):
    text = shown(lambda: tables.show([Table(ROWS, head=True, numbers=True), "[red]end " * 9]))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    assert lines[0].split() == ["Label", "Dice"]
    assert set(lines[1]) == {"─"}
    assert lines[3].split() == ["[bold]17", "nan"]
    assert lines[4] == ("[red]end " * 9).strip()  # not broken: it may be a path


def test_markdown_is_drawn_there_too(shown):
    text = "| Method | Dice |\n| --- | ---: |\n| **own** | 0.7 |\n"
    drawn = shown(lambda: tables.show_markdown(text))
    assert "own" in drawn
    assert "**" not in drawn


def test_doctor_says_the_same_in_a_terminal(shown, capsys):
    assert main(["doctor"]) == 0
    words = set(capsys.readouterr().out.split())
    found = shown(lambda: main(["doctor"]))
    assert {"Package", "Operation", "warp"} <= words & set(found.split())


def test_what_draws_is_loaded_in_a_terminal_alone():
    code = (
        "import sys; from lganet_fast.cli import main; main(['doctor'])\n"
        "assert 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
