"""Two processes that share an evaluation and a cohort, as torchrun starts them."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import layouts

import lganet_fast
from lganet_fast import config
from lganet_fast.cli import main

PLACE = str(Path(lganet_fast.__file__).parent.parent)
BOTH = f"""
import json, os, sys
sys.path.insert(0, {PLACE!r})
from lganet_fast.cli import main
codes = []
for os.environ["MASTER_PORT"], words in json.loads(sys.argv[1]):
    codes.append(main(words))
sys.exit(max(codes))
"""


def commands(data, settings, out):
    """Evaluate the data set's test pairs, and register pairs of its images."""
    overrides = [w for x in settings for w in ("--set", x)]
    evaluation = ["evaluate", "lpba40", "--out", f"{out}/scores", "--quiet", *overrides]
    options = ["--iterations", "1", "--no-qc", "--quiet"]
    cohort = ["register", "--pairs", f"{data}/pairs.csv", "--out", f"{out}/pairs", *options]
    return evaluation, cohort


def rows(path):
    with open(path, newline="") as file:
        found = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


def test_two_ranks_do_what_one_does(tmp_path):
    data = tmp_path / "data"
    settings = [*layouts.write("lpba40", data), "train.device=cpu"]
    assert config.load("lpba40", settings).evaluate.split == "test"
    image = "{}/S{}.delineation.skullstripped.nii.gz"
    lines = [f"fixed.nii.gz,{image.format(*x)}" for x in (("test", "02"), ("train", "11"))]
    (data / "pairs.csv").write_text("\n".join(["fixed,moving", *lines, "fixed.nii.gz,gone.nii.gz"]))
    assert [main(words) for words in commands(data, settings, tmp_path / "one")] == [0, 2]
    with socket.socket() as one, socket.socket() as two:  # a meeting place for each command
        for free in (one, two):
            free.bind(("127.0.0.1", 0))
        ports = [str(free.getsockname()[1]) for free in (one, two)]
    words = json.dumps(list(zip(ports, commands(data, settings, tmp_path / "two"), strict=True)))
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", BOTH, words],
            env={
                **os.environ,
                **shared,
                "RANK": rank,
                "LOCAL_RANK": rank,
                "OMP_NUM_THREADS": "1",
            },
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [2, 0]
    assert "1 of 3 pairs failed: gone_to_fixed" in errors[0]
    for name in ("scores/cases.csv", "scores/labels.csv", "pairs/cohort.csv", "pairs/failures.csv"):
        one, two = (rows(tmp_path / folder / name) for folder in ("one", "two"))
        assert len(one) == len(two) > 0
        assert [list(row) for row in one] == [list(row) for row in two]
        for a, b in zip(one, two, strict=True):
            for key, value in a.items():
                assert b[key].replace("/two/", "/one/") == value
