"""Some hundred damaged files for every reader; `python -m tests.fuzz` tries any number of them."""

from __future__ import annotations

from collections import Counter

from fuzz.__main__ import FAULTS, ROOM, fuzz


def test_no_reader_fails_hangs_or_reads_another_thing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where inputs that come to a fault are kept
    table, grown = fuzz(500, seed=1, quiet=True)
    total = sum(table.values(), Counter())
    assert {name: total[name] for name in FAULTS} == dict.fromkeys(FAULTS, 0)
    assert total["refused"] > 200
    assert grown < ROOM
