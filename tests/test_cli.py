"""The command from end to end: what it writes, prints and leaves behind."""

from __future__ import annotations

import gzip
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
from synthetic import oblique_grid, synthetic_pair

import lganet_fast
from lganet_fast import __version__
from lganet_fast.cli import COMMANDS, build_parser, main
from lganet_fast.registration.pairwise import OUTPUTS
from lganet_fast.volumes import nifti
from lganet_fast.volumes.grid import Grid

GRID = oblique_grid((24, 26, 22), (3.0, 2.8, 3.2), 10)
QUICK = ["--iterations", "6x3", "--threads", "2"]
PLACE = str(Path(lganet_fast.__file__).parent.parent)
MODULE = [
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {PLACE!r})\n"
    "from lganet_fast.__main__ import main; sys.exit(main())",
]


@pytest.fixture(scope="module")
def pair():
    return synthetic_pair(GRID, GRID)


@pytest.fixture
def files(tmp_path, monkeypatch, pair):
    """A pair with labels as files in the working folder; the folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("fixed", "moving", "fixed_labels", "moving_labels"):
        volume = getattr(pair, name)
        nifti.save_volume(f"{name}.nii.gz", volume.data, volume.grid)
    return tmp_path


def register(*words, fixed="fixed.nii.gz", moving="moving.nii.gz", out="out"):
    return main(["register", "--fixed", fixed, "--moving", moving, "--out", out, *QUICK, *words])


LABELS = ["--fixed-labels", "fixed_labels.nii.gz", "--moving-labels", "moving_labels.nii.gz"]


def names(folder):
    return sorted(os.listdir(folder))


def test_register_writes_everything_and_says_so(files, capsys):
    assert register(*LABELS, "--fixed-mask", "fixed_labels.nii.gz") == 0
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
    words = ["--similarity", "mind", "--smoothness", "0.5", "--seed", "3", "--precision", "float64"]
    assert register(*words, "--device", "cpu", "--no-qc", "--quiet") == 0
    settings = json.loads(Path("out/report.json").read_text())["settings"]
    assert settings == {
        "similarity": "mind",
        "iterations": [6, 3],
        "smoothness": 0.5,
        "affine": False,
        "seed": 3,
        "precision": "float64",
        "checkpoint": None,
    }


def save(path, data, affine=None):
    nib.save(nib.Nifti1Image(data, GRID.affine if affine is None else affine), path)
    return path


def image(pair):
    return pair.fixed.data.copy()


def truncated(pair):
    path = save("bad.nii.gz", image(pair))
    whole = Path(path).read_bytes()
    assert gzip.decompress(whole)
    Path(path).write_bytes(whole[: len(whole) // 2])


def not_an_image(pair):
    Path("bad.nii.gz").write_text("no image at all")


def with_nan(pair):
    data = image(pair)
    data[3, 4, 5:9] = np.nan
    data[0, 0, 0] = np.inf
    save("bad.nii.gz", data)


def colours(pair):
    rgb = np.zeros(GRID.shape, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    save("bad.nii.gz", rgb)


def singular(pair):
    header = nib.Nifti1Header()
    header.set_data_shape(GRID.shape)
    header.set_data_dtype(np.float32)
    for row in "xyz":
        header[f"srow_{row}"] = (1, 0, 0, 0)
    header["sform_code"] = 1
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    raw = header.binaryblock + bytes(4) + image(pair).T.tobytes()
    Path("bad.nii.gz").write_bytes(gzip.compress(raw))


def far_away(pair):
    affine = GRID.affine.copy()
    affine[:3, 3] += 900
    save("bad.nii.gz", image(pair), affine)


BAD_IMAGES = {
    "missing": (lambda pair: None, "bad.nii.gz does not exist"),
    "folder": (lambda pair: Path("bad.nii.gz").mkdir(), "bad.nii.gz is not a file"),
    "empty file": (lambda pair: Path("bad.nii.gz").touch(), "bad.nii.gz is empty: 0 bytes"),
    "not an image": (not_an_image, "bad.nii.gz cannot be read as an image"),
    "truncated": (truncated, "bad.nii.gz cannot be read"),
    "2D": (lambda pair: save("bad.nii.gz", image(pair)[0]), "has shape 26 x 22: a volume with"),
    "one plane": (lambda pair: save("bad.nii.gz", image(pair)[:, :, :1]), "24 x 26 x 1: a volume"),
    "time points": (
        lambda pair: save("bad.nii.gz", np.stack([image(pair)] * 3, -1)),
        "has shape 24 x 26 x 22 x 3: 3 time points, one is needed",
    ),
    "RGB": (colours, "holds colours (R/G/B), not one value"),
    "complex": (lambda pair: save("bad.nii.gz", image(pair) * 1j), "holds complex values"),
    "NaN": (with_nan, f"has 5 voxels that are NaN or infinite, of {24 * 26 * 22}"),
    "constant": (
        lambda pair: save("bad.nii.gz", np.full(GRID.shape, 7, np.int16)),
        "is constant: every voxel is 7",
    ),
    "singular affine": (singular, "has a singular affine"),
    "no overlap": (far_away, "fixed and moving do not overlap in world space"),
}


def assert_refused(capsys, before, code, *messages):
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1, printed.err
    assert printed.err.startswith("lganet-fast: error: ")
    assert all(message in printed.err for message in messages), printed.err
    assert names(".") == before


@pytest.mark.parametrize("role", ["fixed", "moving"])
@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_image_is_one_line_and_leaves_nothing(files, capsys, pair, kind, role):
    make, message = BAD_IMAGES[kind]
    make(pair)
    before = names(".")
    named = "" if kind == "no overlap" else f"{role} "
    assert_refused(capsys, before, register(**{role: "bad.nii.gz"}), named, message)


def labels_elsewhere(pair):
    affine = GRID.affine.copy()
    affine[0, 3] += 1
    return pair.fixed_labels.data.astype(np.uint8), affine


BAD_LABELS = {
    "another shape": (
        lambda pair: (np.ones((24, 26, 21), np.uint8), None),
        "is on 24 x 26 x 21 voxels",
    ),
    "another place": (labels_elsewhere, "but must be on its image's grid"),
    "negative": (
        lambda pair: (pair.fixed_labels.data.astype(np.int16) - 1, None),
        "must hold labels from 0 on, found -1",
    ),
    "fractions": (
        lambda pair: (pair.fixed_labels.data * np.float32(0.5), None),
        "must hold whole numbers, found",
    ),
}


@pytest.mark.parametrize("option", ["--fixed-labels", "--moving-labels", "--fixed-mask"])
@pytest.mark.parametrize("kind", BAD_LABELS)
def test_bad_labels_are_one_line_and_leave_nothing(files, capsys, pair, kind, option):
    make, message = BAD_LABELS[kind]
    save("bad.nii.gz", *make(pair))
    before = names(".")
    code = register(option, "bad.nii.gz")
    assert_refused(capsys, before, code, message)


def test_empty_mask(files, capsys):
    save("bad.nii.gz", np.zeros(GRID.shape, np.uint8))
    before = names(".")
    assert_refused(capsys, before, register("--fixed-mask", "bad.nii.gz"), "is empty")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "tpu"], "device must be auto or one of cpu"),
        (["--threads", "0"], "threads must be at least 1, got 0"),
        (["--smoothness", "-1"], "smoothness must be a number from 0 on"),
        (["--iterations", "0x0"], "iterations must be 1 to 8 whole numbers"),
    ],
)
def test_bad_settings(files, capsys, words, message):
    before = names(".")
    assert_refused(capsys, before, register(*words), message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--similarity", "nmi"], "invalid choice: 'nmi'"),
        (["--iterations", "5xx"], "must be whole numbers joined by x, such as 40x40x10x10"),
        (["--smoothness", "much"], "invalid float value"),
        (["--what"], "unrecognized arguments: --what"),
    ],
)
def test_words_that_do_not_parse(files, capsys, words, message):
    before = names(".")
    with pytest.raises(SystemExit) as caught:
        register(*words)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert names(".") == before


@pytest.mark.parametrize("words", [[], ["register"], ["register", "--fixed", "f.nii"], ["fly"]])
def test_missing_words(capsys, words):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("out", ["taken", "taken/out"])
def test_a_file_in_the_way_of_the_output(files, capsys, out):
    Path("taken").write_text("mine")
    before = names(".")
    assert_refused(capsys, before, register(out=out), "cannot write into")
    assert Path("taken").read_text() == "mine"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(files, capsys):
    Path("locked").mkdir(mode=0o555)
    before = names(".")
    assert_refused(capsys, before, register(out="locked/out"), "Permission denied")
    assert names("locked") == []


def test_a_full_disk(files, capsys, monkeypatch):
    def full(self, *arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib.Nifti1Image, "to_stream", full)
    before = names(".")
    assert_refused(capsys, before, register("--quiet"), "No space left on device")


def test_memory_that_is_not_there(files, capsys, monkeypatch):
    def refuse(*arguments):
        raise MemoryError("Unable to allocate 9.9 TiB")

    monkeypatch.setattr("lganet_fast.registration.pairwise.read_pair", refuse)
    before = names(".")
    assert_refused(capsys, before, register(), "out of memory: Unable to allocate 9.9 TiB")


def test_warnings_are_one_line_each(files, capsys, pair):
    affine = GRID.affine.copy()
    affine[:3, 3] = GRID.to_world([23, 0, 0])
    affine[:3, 0] *= -1
    save("flipped.nii.gz", pair.moving.data[::-1].copy(), affine)
    assert register("--no-qc", "--quiet", moving="flipped.nii.gz") == 0
    err = capsys.readouterr().err
    assert err.startswith("lganet-fast: warning: orientation differs: fixed RAS, moving LAS")
    assert err.count("\n") == 1
    note = json.loads(Path("out/report.json").read_text())["warnings"][0]
    assert note in err


def test_main_leaves_the_caller_s_warnings_and_signals_alone(files):
    before = warnings.showwarning, signal.getsignal(signal.SIGTERM)
    register("--no-qc", "--quiet")
    assert (warnings.showwarning, signal.getsignal(signal.SIGTERM)) == before


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"lganet-fast {__version__}\n"


def commands():
    return [module.__name__.rsplit(".", 1)[1] for module in COMMANDS]


@pytest.mark.parametrize("command", commands())
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
    assert all(f"\n    {command} " in text for command in commands())


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
        [*MODULE, *words, "--iterations", "0x400"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    seen = b""
    while b"resolution" not in seen:  # the bar: now it is in the middle
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
