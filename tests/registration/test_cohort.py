"""Many pairs by one command: what is skipped, what goes on past a failure, what is summed up."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from reports import report_on
from synthetic import oblique_grid, synthetic_pair

from lganet_fast import InputError, LGANetPlusPlus
from lganet_fast.cli import main
from lganet_fast.models.checkpoint import Card, save
from lganet_fast.nn.encoder import Encoder
from lganet_fast.registration import cohort
from lganet_fast.registration.cohort import read_pairs, register_pairs
from lganet_fast.registration.results import write_report
from lganet_fast.registration.settings import Run, check_settings
from lganet_fast.report.contents import Report
from lganet_fast.volumes import nifti

GRID = oblique_grid((18, 20, 16), (4.0, 3.8, 4.2), 10)
HEADER = "name,fixed,moving,fixed_labels,moving_labels\n"
LABELLED = "fixed.nii.gz,moving.nii.gz,fixed_labels.nii.gz,moving_labels.nii.gz"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder with a pair and its labels."""
    folder = tmp_path_factory.mktemp("images")
    pair = synthetic_pair(GRID, GRID)
    for name in ("fixed", "moving", "fixed_labels", "moving_labels"):
        volume = getattr(pair, name)
        nifti.save_volume(folder / f"{name}.nii.gz", volume.data, volume.grid)
    return folder


@pytest.fixture
def place(images, tmp_path, monkeypatch):
    """A working folder with those images and a table of two pairs in `data`."""
    shutil.copytree(images, tmp_path / "data")
    table(tmp_path / "data", f"one,{LABELLED}\n", "two,fixed.nii.gz,moving.nii.gz,,\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(folder, *rows, header=HEADER):
    (folder / "pairs.csv").write_text(header + "".join(rows))


def run(*more):
    options = ["--iterations", "2", "--threads", "1", "--no-qc", *more]
    return main(["register", "--pairs", "data/pairs.csv", "--out", "out", *options])


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def times():
    return {path.parent.name: path.stat().st_mtime_ns for path in Path("out").glob("*/report.json")}


def test_every_pair_has_its_folder_and_a_row(place, capsys):
    assert run() == 0
    assert sorted(os.listdir("out")) == ["cohort.csv", "one", "two"]
    report = json.loads(Path("out/one/report.json").read_text())
    one, two = rows("out/cohort.csv")
    assert list(one) == list(cohort.SUMMARY)
    assert float(one["dice_after"]) == pytest.approx(report["labels"]["mean_dice_after"])
    assert float(one["dice_before"]) == pytest.approx(report["labels"]["mean_dice_before"])
    assert (two["name"], two["dice_before"]) == ("two", "nan")
    assert "warped_labels.nii.gz" in os.listdir("out/one")
    printed = capsys.readouterr()
    assert "registered     2" in printed.out
    assert printed.err == ""  # no terminal


def test_what_is_done_is_skipped_until_it_changes(place, capsys):
    assert run("--quiet") == 0
    first = times()
    assert run() == 0
    assert "done before    2" in capsys.readouterr().out
    assert times() == first
    Path("out/two/warp.nii.gz").unlink()
    assert run("--quiet") == 0
    second = times()
    assert (second["one"], second["two"] > first["two"]) == (first["one"], True)
    Path("out/two/report.json").write_text("{")
    labels = nifti.load_labels("data/moving_labels.nii.gz", "labels")
    nifti.save_volume("data/moving_labels.nii.gz", labels.data // 2, labels.grid)
    assert run("--quiet") == 0
    third = times()
    assert third["one"] > second["one"]
    assert third["two"] > second["two"]
    assert run("--quiet", "--smoothness", "2") == 0
    assert min(times().values()) > max(third.values())


def test_a_failure_is_listed_and_the_others_go_on(place, capsys, monkeypatch):
    table(
        place / "data",
        "gone,nowhere.nii.gz,moving.nii.gz,,\n",
        "odd,fixed.nii.gz,moving.nii.gz,,\n",
        f"one,{LABELLED}\n",
    )
    real = cohort.register_sources

    def broken(sources, settings, run, network):
        if run.out.name == "odd":
            raise ZeroDivisionError("by\nzero")
        return real(sources, settings, run, network)

    monkeypatch.setattr(cohort, "register_sources", broken)
    assert run("--quiet") == 2
    assert "2 of 3 pairs failed: gone, odd; see out/failures.csv" in capsys.readouterr().err
    gone, odd = rows("out/failures.csv")
    assert "nowhere.nii.gz does not exist" in gone["error"]
    assert odd["error"] == "ZeroDivisionError: by"
    assert [row["name"] for row in rows("out/cohort.csv")] == ["one"]
    table(place / "data", f"one,{LABELLED}\n")
    assert run("--quiet") == 0
    assert not Path("out/failures.csv").exists()


def test_an_interrupt_stops_it(place, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cohort, "register_sources", interrupted)
    assert run("--quiet") == 130
    assert "interrupted" in capsys.readouterr().err


def test_another_checkpoint_under_one_name_is_another_setting(place):
    sources = read_pairs("data/pairs.csv")[1].sources
    settings = check_settings(iterations=(1,), checkpoint="weights")
    folder = place / "made"
    folder.mkdir()
    for name in ("warped.nii.gz", "warp.nii.gz", "inverse_warp.nii.gz"):
        shutil.copy("data/fixed.nii.gz", folder / name)
    Path("weights").write_bytes(b"first")
    report = report_on(sources, settings, network={"sha256": cohort.sha256("weights")})
    write_report(report, folder)
    run = Run(out=folder, qc=False)
    assert cohort.finished(sources, settings, run).as_dict() == plain(report)
    assert cohort.finished(sources, settings, replace(run, qc=True)) is None
    Path("weights").write_bytes(b"second")
    assert cohort.finished(sources, settings, run) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, "out"), "table must be text or a path, got 3"),
        (("pairs.csv", None), "out must be text or a path, got None"),
    ],
)
def test_refuses_what_is_no_path(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pairs.csv").write_text("fixed,moving\na.nii,b.nii\n")
    with pytest.raises(InputError, match=message):
        register_pairs(*arguments)


def test_another_transform_under_one_name_is_another_setting(place):
    sources = read_pairs("data/pairs.csv")[1].sources
    folder = place / "made"
    folder.mkdir()
    for name in ("warped.nii.gz", "warp.nii.gz", "inverse_warp.nii.gz"):
        shutil.copy("data/fixed.nii.gz", folder / name)
    np.savetxt("start.txt", np.eye(4))
    settings = check_settings(iterations=(1,), initial="start.txt")
    write_report(report_on(sources, settings, affine_matrix_ras_mm=np.eye(4).tolist()), folder)
    run = Run(out=folder, qc=False)
    assert cohort.finished(sources, settings, run) is not None
    assert cohort.finished(sources, replace(settings, initial="identity"), run) is None
    np.savetxt("start.txt", np.diag([1.1, 1, 1, 1]))
    assert cohort.finished(sources, settings, run) is None


def plain(report):
    """The report as read back: JSON has no tuples."""
    settings = json.loads(json.dumps(report.settings))
    inverse = replace(report.inverse_consistency_mm, max=pytest.approx(np.nan, nan_ok=True))
    return replace(report, settings=settings, inverse_consistency_mm=inverse).as_dict()


def test_every_pair_has_its_report_also_in_memory(place):
    one, two = register_pairs("data/pairs.csv", "out", iterations=(2,), threads=1, qc=False)
    written = json.loads(Path("out/one/report.json").read_text())
    assert one.report["labels"]["mean_dice_after"] == written["labels"]["mean_dice_after"]
    assert one.details.jacobian.folded_percent == written["jacobian"]["folded_percent"]
    assert (two.details.labels, two.failure, two.skipped) == (None, "", False)
    assert Report.from_dict(one.report) == one.details
    with pytest.raises(TypeError, match="iteration"):
        register_pairs("data/pairs.csv", "out", iteration=(2,))


def test_a_checkpoint_is_opened_once_and_one_fixed_image_is_encoded_once(place, monkeypatch):
    torch.manual_seed(0)
    save(LGANetPlusPlus((48, 48, 48), lgam=False), place / "weights.safetensors", Card())
    opened, encoded, load, encode = [], [], cohort.opened, Encoder.forward
    monkeypatch.setattr(cohort, "opened", lambda p: opened.append(p) or load(p))

    def noted(self, x):
        encoded.append(len(x))
        return encode(self, x)

    monkeypatch.setattr(Encoder, "forward", noted)
    weights = ["--checkpoint", "weights.safetensors", "--iterations", "0"]
    assert run("--quiet", *weights) == 0
    assert opened == ["weights.safetensors"]
    assert encoded == [1, 1, 1]
    files = ["--fixed", "data/fixed.nii.gz", "--moving", "data/moving.nii.gz", "--out", "alone"]
    assert main(["register", *files, "--threads", "1", "--no-qc", "--quiet", *weights]) == 0
    assert encoded == [1, 1, 1, 2]
    one, other = (nib.load(f"{name}/warp.nii.gz").get_fdata() for name in ("out/two", "alone"))
    assert np.array_equal(one, other)
    assert np.abs(one).max() > 0


def test_names_come_from_the_files_and_paths_from_the_table(tmp_path):
    table(tmp_path, "a/f.nii.gz,b/m.nii,train\n", header="fixed,moving,split\n")
    (row,) = read_pairs(tmp_path / "pairs.csv")
    assert row.name == "m_to_f"
    assert row.files == {"fixed": f"{tmp_path}/a/f.nii.gz", "moving": f"{tmp_path}/b/m.nii"}


@pytest.mark.parametrize(
    ("header", "line", "message"),
    [
        ("fixed,move\n", "a,b\n", "moving missing"),
        ("fixed,moving,moving_label\n", "a,b,c\n", "unknown column moving_label"),
        ("fixed,moving\n", "a,\n", "row 2: moving is empty"),
        ("fixed,moving\n", "a,b\na,b\n", "2 pairs are called b_to_a"),
        ("fixed,moving,name\n", "a,b,../c\n", "a name must be a valid folder name, got '../c'"),
        ("fixed,moving\n", "", "no row"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(tmp_path, header, line, message):
    table(tmp_path, line, header=header)
    with pytest.raises(InputError, match=message):
        read_pairs(tmp_path / "pairs.csv")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pairs", "p.csv", "--fixed", "f"], "--pairs names the files: leave out --fixed"),
        (["--pairs", "p.csv", "--moving-labels", "f"], "leave out --moving-labels"),
        (["--fixed", "f"], "--moving is missing: give --fixed and --moving, or --pairs"),
        (["--pairs", "nowhere.csv"], "cannot read nowhere.csv"),
    ],
)
def test_files_and_pairs_do_not_mix(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["register", "--out", "out", *words]) == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


ODD = [
    ("jacobian", {}),
    ("jacobian", None),
    ("seconds", {}),
    ("seconds", "x"),
    ("seconds", {"total": "x"}),
    ("warnings", None),
    ("warnings", [1]),
    ("verdict", "fine"),
    ("reasons", None),
    ("labels", [1]),
    ("labels", {"mean_dice_before": "x"}),
    ("inputs", 5),
    ("backend", None),
]


@pytest.mark.parametrize(("key", "value"), ODD)
def test_a_damaged_report_is_no_result(place, key, value, monkeypatch):
    table(place / "data", "two,fixed.nii.gz,moving.nii.gz,,\n")
    monkeypatch.setattr(cohort, "register_sources", made_up)
    assert run("--quiet") == 0
    path = Path("out/two/report.json")
    whole = path.read_text()
    path.write_text(json.dumps({**json.loads(whole), key: value}))
    assert run("--quiet") == 0
    assert path.read_text() == whole


def test_a_report_that_lacks_a_setting_is_no_result(place, monkeypatch):
    table(place / "data", "two,fixed.nii.gz,moving.nii.gz,,\n")
    monkeypatch.setattr(cohort, "register_sources", made_up)
    assert run("--quiet") == 0
    path = Path("out/two/report.json")
    whole = path.read_text()
    report = json.loads(whole)
    del report["settings"]["initial"]
    path.write_text(json.dumps(report))
    assert run("--quiet") == 0
    assert path.read_text() == whole


def test_where_all_pairs_failed_there_is_no_verdict(place, capsys):
    table(place / "data", "gone,nowhere.nii.gz,moving.nii.gz,,\n")
    assert run() == 2
    assert "verdict" not in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["[" * 20000, "[]", "null", "", "{"])
def test_a_report_that_is_none_is_no_result(place, damage, monkeypatch):
    table(place / "data", "two,fixed.nii.gz,moving.nii.gz,,\n")
    monkeypatch.setattr(cohort, "register_sources", made_up)
    assert run("--quiet") == 0
    path = Path("out/two/report.json")
    whole = path.read_text()
    path.write_text(damage)
    assert run("--quiet") == 0
    assert path.read_text() == whole


@pytest.mark.parametrize("name", ["warped.nii.gz", "warp.nii.gz", "inverse_warp.nii.gz"])
@pytest.mark.parametrize("keep", [0, -1])
def test_a_damaged_file_is_no_result(place, name, keep, monkeypatch):
    table(place / "data", "two,fixed.nii.gz,moving.nii.gz,,\n")
    monkeypatch.setattr(cohort, "register_sources", made_up)
    assert run("--quiet") == 0
    path = Path("out/two") / name
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    assert run("--quiet") == 0
    assert path.read_bytes() == whole


def made_up(sources, settings, run, network):
    """A registration's files without the work."""
    assert run.overwrite
    run.out.mkdir(exist_ok=True)
    volume = nifti.load_image(sources.fixed, "fixed")
    for name in ("warped", "warp", "inverse_warp"):
        nifti.save_volume(run.out / f"{name}.nii.gz", volume.data, volume.grid)
    report = report_on(sources, settings)
    write_report(report, run.out)
    return SimpleNamespace(details=report)


@pytest.mark.parametrize("name", ["failures.csv", "cohort.csv", "Cohort.CSV", ".hidden"])
def test_a_pair_may_not_be_called_like_a_file_of_ours(place, name):
    table(place / "data", f"{name},fixed.nii.gz,moving.nii.gz,,\n")
    with pytest.raises(InputError, match="a pair cannot be called"):
        read_pairs("data/pairs.csv")


def test_an_input_of_two_files_is_both(tmp_path):
    data = np.arange(24.0).reshape(2, 3, 4)
    for name, values in (("a", data), ("b", data + 1)):
        nib.save(nib.Nifti1Pair(values, np.eye(4)), tmp_path / f"{name}.img")
    one, other = (nifti.describe(tmp_path / f"{name}.hdr", "fixed") for name in "ab")
    assert one["sha256"] != other["sha256"]
    assert one["sha256"] == nifti.describe(tmp_path / "a.img", "fixed")["sha256"]
