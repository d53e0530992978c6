"""The command from end to end: what it writes, prints and leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from command import LABELS, QUICK, names, register
from synthetic import oblique_grid, synthetic_pair

import lganet_fast
from lganet_fast import __version__
from lganet_fast.cli import COMMANDS, SHELLS, build_parser, main
from lganet_fast.registration.settings import OUTPUTS
from lganet_fast.volumes import nifti
from lganet_fast.volumes.grid import Grid

PLACE = str(Path(lganet_fast.__file__).parent.parent)
MODULE = [
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {PLACE!r})\n"
    "from lganet_fast.__main__ import main; sys.exit(main())",
]


def test_register_writes_everything_and_says_so(files, capsys):
    assert register(*LABELS, "--fixed-mask", "fixed_labels.nii.gz", "--verbose") == 0
    assert names("out") == sorted(OUTPUTS)
    report = json.loads(Path("out/report.json").read_text())
    printed = capsys.readouterr()
    rows = dict(line.split(None, 1) for line in printed.out.splitlines())
    labels = report["labels"]
    after = f"{labels['mean_dice_after']:.4f}"
    assert f"{labels['mean_dice_before']:.4f} -> {after} over 4 labels" in printed.out
    assert rows["results"] == "out"
    assert "resolution 1/1" in printed.err
    assert report["settings"]["iterations"] == [6, 3]
    assert report["inputs"]["fixed_mask"]["path"] == "fixed_labels.nii.gz"


def test_quiet_prints_nothing_and_no_qc_writes_no_page(files, capsys):
    assert register("--no-qc", "--quiet") == 0
    assert names("out") == ["inverse_warp.nii.gz", "report.json", "warp.nii.gz", "warped.nii.gz"]
    assert capsys.readouterr() == ("", "")


def test_a_second_run_takes_the_place_of_the_first(files):
    assert register(*LABELS, "--quiet") == 0
    Path("out/mine.txt").write_text("kept")
    assert register("--no-qc", "--quiet") == 2  # labels and page would be lost
    assert names("out") == sorted({*OUTPUTS, "mine.txt"})
    assert register("--no-qc", "--quiet", "--overwrite") == 0
    expected = {*OUTPUTS, "mine.txt"} - {"warped_labels.nii.gz", "qc.html"}
    assert names("out") == sorted(expected)


def test_every_option_reaches_the_settings(files, capsys):
    words = [
        "--similarity",
        "mind",
        "--smoothness",
        "0.5",
        "--initial",
        "center",
        "--precision",
        "float64",
        "--preset",
        "best",
    ]
    assert register(*words, "--device", "cpu", "--no-qc", "--quiet") == 0
    settings = json.loads(Path("out/report.json").read_text())["settings"]
    assert settings == {
        "similarity": "mind",
        "iterations": [6, 3],
        "smoothness": 0.5,
        "initial": "center",
        "precision": "float64",
        "checkpoint": None,
        "preset": "best",
        "again": [],  # given iterations are those of a single search
        "points_weight": 0.0,
        "guide_labels": 0.0,
        "channel_weights": [1.0],
        "no_folds": False,
    }


def test_main_leaves_the_caller_s_warnings_and_signals_alone(files):
    before = warnings.showwarning, signal.getsignal(signal.SIGTERM)
    register("--no-qc", "--quiet")
    assert (warnings.showwarning, signal.getsignal(signal.SIGTERM)) == before


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"lganet-fast {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help(capsys, command):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: lganet-fast {command}" in text
    actions = build_parser()._subparsers._group_actions[0].choices[command]._actions
    assert all(action.help for action in actions)


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n    {command} " in text for command in COMMANDS)


def test_results_go_through_the_other_commands(files, capsys):
    assert register(*LABELS, "--no-qc", "--quiet") == 0
    warp = ["--transform", "out/warp.nii.gz"]
    moved = ["apply", *warp, "--labels", "moving_labels.nii.gz", "--out", "moved.nii.gz"]
    assert main(moved) == 0
    found, written = (nib.load(p).dataobj for p in ("moved.nii.gz", "out/warped_labels.nii.gz"))
    np.testing.assert_array_equal(found, written)
    assert main(["convert", "out/warp.nii.gz", "warp_ras.nii.gz", "--to", "slicer"]) == 0
    pairs = ["--fixed-labels", "fixed_labels.nii.gz", "--moved-labels", "moved.nii.gz"]
    assert main(["metrics", *pairs, *warp, "--json", "scores.json"]) == 0
    scores = json.loads(Path("scores.json").read_text())
    report = json.loads(Path("out/report.json").read_text())
    assert scores["labels"]["mean_dice"] == pytest.approx(report["labels"]["mean_dice_after"])
    assert scores["transform"]["sdlogj"] == pytest.approx(report["jacobian"]["sdlogj"], rel=1e-3)
    capsys.readouterr()
    assert main(["doctor"]) == 0
    assert __version__ in capsys.readouterr().out


def test_demo_command(files, capsys, monkeypatch):
    pytest.importorskip("nilearn")
    from lganet_fast.registration import demo

    coarse = demo.load_template(8)
    monkeypatch.setattr(demo, "load_template", lambda resolution: coarse)
    assert main(["demo", "--out", "demo", "--threads", "2", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "error, mean (mm)" in printed.out
    assert {"qc.html", "truth.nii.gz", "report.json"} <= set(names("demo"))


@pytest.mark.parametrize("script", [True, False])
def test_as_a_process(files, script):
    """The installed command, and the same through Python where it is not installed."""
    installed = Path(sysconfig.get_path("scripts")) / "lganet-fast"
    if script and not installed.exists():
        pytest.skip("the package is not installed")
    command = [str(installed)] if script else MODULE
    words = ["register", "--fixed", "fixed.nii.gz", "--moving", "moving.nii.gz", "--out", "out"]
    done = subprocess.run([*command, *words, *QUICK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert names("out") == sorted(set(OUTPUTS) - {"warped_labels.nii.gz"})
    assert "folded voxels" in done.stdout
    done = subprocess.run(
        [*command, *words, "--device", "tpu"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("lganet-fast: error: device must be")


def test_a_pipe_that_closes_is_no_error():
    process = subprocess.Popen([*MODULE, "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize(
    ("number", "out"), [(signal.SIGINT, "out"), (signal.SIGTERM, "new/deep/out")]
)
def test_interrupt_leaves_no_file(tmp_path, number, out):
    grid = Grid((96, 96, 96), oblique_grid((96, 96, 96), (0.75, 0.75, 0.75), 0).affine)
    pair = synthetic_pair(grid, grid)
    for name in ("fixed", "moving"):
        volume = getattr(pair, name)
        nifti.save_volume(tmp_path / f"{name}.nii", volume.data, volume.grid)
    before = names(tmp_path)
    words = ["register", "--fixed", "fixed.nii", "--moving", "moving.nii", "--out", out]
    process = subprocess.Popen(
        [*MODULE, *words, "--iterations", "0x400", "--verbose"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    seen = b""
    while b"resolution" not in seen:  # its progress: now it is in the middle
        part = os.read(process.stderr.fileno(), 4096)
        assert part, seen
        seen += part
    process.send_signal(number)
    output, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert output == b""
    assert rest.decode().splitlines()[-1].startswith("lganet-fast: interrupted")
    assert b"Traceback" not in rest
    assert names(tmp_path) == before


def test_threads_are_limited(files):
    assert register("--no-qc", "--quiet", "--threads", "1") == 0
    report = json.loads(Path("out/report.json").read_text())
    assert report["backend"]["threads"] == 1
    assert torch.get_num_threads() == 1


def test_answers_before_torch_loads():
    code = (
        f"import sys; sys.path.insert(0, {PLACE!r})\n"
        "import lganet_fast, lganet_fast.__main__\n"
        "assert 'torch' not in sys.modules\n"
        "assert callable(lganet_fast.register)\n"
        "assert 'torch' in sys.modules and lganet_fast.register is lganet_fast.register\n"
        "assert lganet_fast.ops.warp\n"
        "try: lganet_fast.nothing\n"
        "except AttributeError as error: assert 'nothing' in str(error)\n"
        "else: raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("words", "most", "absent"),
    [
        (["--help"], 250, ("numpy", "torch", "scipy", "nibabel")),
        (["register", "--help"], 250, ("numpy", "torch", "scipy", "nibabel")),
        (["train", "--help"], 250, ("torch", "numpy", "pydantic")),
        (["convert", "--help"], 500, ("torch", "scipy.ndimage", "matplotlib")),
    ],
)
def test_help_loads_little(words, most, absent):
    code = (
        f"import sys; sys.path.insert(0, {PLACE!r})\n"
        "from lganet_fast.cli import main\n"
        f"try: main({words!r})\n"
        "except SystemExit: print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = done.stderr.split()
    assert len(loaded) < most
    assert not set(absent) & set(loaded)


@pytest.mark.parametrize("shell", SHELLS)
def test_completion(capsys, shell):
    with pytest.raises(SystemExit) as caught:
        main(["--completion", shell])
    assert caught.value.code == 0
    script = capsys.readouterr().out
    assert shell == "tcsh" or "--moving-labels" in script  # options of subcommands are not there
    assert all(command in script for command in COMMANDS)


def test_points_reach_the_summary_and_the_page(files, capsys):
    Path("p.csv").write_text("x,y,z\n1,2,3\n-4,5,0\n")
    Path("q.csv").write_text("x,y,z\n3,2,3\n-2,5,0\n")
    points = ["--fixed-points", "p.csv", "--moving-points", "q.csv", "--points-weight", "0.5"]
    assert register(*points) == 0
    report = json.loads(Path("out/report.json").read_text())
    after = report["points"]["mean_mm_after"]
    assert f"2.000 -> {after:.3f} mm mean of 2" in capsys.readouterr().out
    assert report["settings"]["points_weight"] == 0.5
    assert "they pulled the search" in Path("out/qc.html").read_text()
    Path("q.csv").write_text("x,y,z\n3,2,3\n-2,5,999\n")
    assert register(*points, "--overwrite") == 2
    assert "moving_points: 1 of 2 lie outside the image" in capsys.readouterr().err


def test_labels_that_steer_are_named_as_such(files, capsys):
    assert register(*LABELS, "--guide-labels", "0.5") == 0
    printed = capsys.readouterr()
    assert "over 4 labels, which steered the search" in printed.out
    assert "labels steered the search: Dice and HD95 are no independent evidence" in printed.err
    report = json.loads(Path("out/report.json").read_text())
    assert report["labels"]["steered"]
    assert report["settings"]["guide_labels"] == 0.5
    assert "which steered the search: no independent evidence" in Path("out/qc.html").read_text()
    assert register(*LABELS[:2], "--guide-labels", "--overwrite") == 2
    assert "guide_labels needs moving_labels" in capsys.readouterr().err
