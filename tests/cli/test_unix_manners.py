"""The command among other programs: Ctrl-C at any time, output that goes nowhere, odd names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lganet_fast
from lganet_fast.cli import main
from lganet_fast.runtime.csv_files import write_rows
from lganet_fast.runtime.json_files import report_json, write_report_json
from lganet_fast.transforms.field import DisplacementField
from lganet_fast.volumes import nifti
from lganet_fast.volumes.grid import Grid

PLACE = str(Path(lganet_fast.__file__).parent.parent)
GRID = Grid((6, 7, 8), np.eye(4))
ODD = "\udcff\udcfe.nii"

INTERRUPTED = """
import builtins, os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
wanted, real = sys.argv.pop(1), builtins.__import__
def load(name, *more, **named):
    if name == wanted:
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *more, **named)
builtins.__import__ = load
from lganet_fast.__main__ import main
sys.exit(main())
"""


def command(*words, script="", **options):
    script = script or (
        f"import sys; sys.path.insert(0, {PLACE!r})\n"
        "from lganet_fast.__main__ import main; sys.exit(main())"
    )
    options = {"capture_output": True, **options}
    return subprocess.run([sys.executable, "-c", script, *words], check=False, **options)


@pytest.mark.parametrize("name", ["ctypes", "argparse", "numpy", "torch"])
def test_ctrl_c_while_modules_load(name):
    done = command(PLACE, name, "doctor", script=INTERRUPTED)
    assert done.returncode == 130
    assert done.stderr == b"lganet-fast: interrupted\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_output_is_one_line():
    with open("/dev/full", "wb") as full:
        done = command(
            "doctor", capture_output=False, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr.startswith("lganet-fast: error: ")
    assert done.stderr.rstrip().endswith("No space left on device")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_files_are_no_place_for_results(tmp_path, closed):
    DisplacementField(np.zeros((*GRID.shape, 3), np.float32), GRID).save(tmp_path / "a.nii")
    script = (
        f"import sys; sys.path.insert(0, {PLACE!r})\n"
        "from lganet_fast.__main__ import main; sys.exit(main())"
    )
    words = ["bash", "-c", f'exec "$@" {closed}', "-", sys.executable, "-c", script]
    words += ["metrics", "--transform", "a.nii", "--json", "b.json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "b.json").read_text())["transform"]["folded_percent"] == 0


def test_names_that_are_no_text(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    DisplacementField(np.zeros((*GRID.shape, 3), np.float32), GRID).save(ODD)
    nifti.save_volume("image.nii", np.arange(336.0).reshape(GRID.shape), GRID)
    assert main(["apply", "--transform", ODD, "--image", "image.nii", "--out", "b.nii"]) == 0
    assert main(["apply", "--transform", "none", "--image", "b.nii", "--out", f"{ODD}.gz"]) == 2
    assert main(["apply", "--transform", ODD, "--image", f"none{ODD}", "--out", "c.nii"]) == 2
    assert "\\udcff" in capfd.readouterr().err


def test_a_report_keeps_a_name_that_is_no_text(tmp_path):
    report = {"path": f"/tmp/{ODD}", "plain": "äß→"}
    assert "äß→" in report_json(report)
    write_report_json(tmp_path / "a.json", report)
    assert json.loads((tmp_path / "a.json").read_bytes()) == report
    write_rows(tmp_path / "a.csv", ("name",), [{"name": ODD}])
    assert (tmp_path / "a.csv").read_bytes() == b"name\n\\udcff\\udcfe.nii\n"
