"""A report to be shared has no path of its author's."""

from __future__ import annotations

import json
import shutil

import numpy as np
from synthetic import oblique_grid, synthetic_pair

from lganet_fast.cli import main
from lganet_fast.runtime.json_files import named_only
from lganet_fast.volumes import nifti

GRID = oblique_grid((18, 20, 16), (4.0, 3.8, 4.2), 10)


def test_names_in_the_place_of_paths(tmp_path, monkeypatch):
    secret = tmp_path / "patient-4711"
    secret.mkdir()
    pair = synthetic_pair(GRID, GRID)
    for name, data in (("fixed", pair.fixed.data), ("moving", pair.moving.data)):
        nifti.save_volume(secret / f"{name}.nii", data, GRID)
    content = bytearray((secret / "moving.nii").read_bytes())
    content[352:356] = np.float32(np.nan).tobytes()
    (secret / "moving.nii").write_bytes(content)
    words = ["--iterations", "1", "--threads", "1", "--quiet"]
    files = ["--fixed", f"{secret}/fixed.nii", "--moving", f"{secret}/moving.nii"]
    assert main(["register", *files, "--out", f"{tmp_path}/out", "--share", *words]) == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["inputs"]["moving"]["path"] == "moving.nii"
    assert "moving moving.nii has 1 voxels that are NaN" in report["warnings"][0]
    for name in ("report.json", "qc.html"):
        text = (tmp_path / "out" / name).read_text()
        assert "moving.nii" in text
        assert "patient-4711" not in text

    (secret / "pairs.csv").write_text("name,fixed,moving\none,fixed.nii,moving.nii\n")
    table = ["register", "--pairs", f"{secret}/pairs.csv", "--out", f"{tmp_path}/many"]
    path = tmp_path / "many/one/report.json"
    for more, known in ((["--no-qc"], True), (["--no-qc", "--share"], False)):
        assert main([*table, *words, *more]) == 0
        assert ("patient-4711" in path.read_text()) == known
    before = path.stat().st_mtime_ns
    assert main([*table, *words, "--no-qc", "--share"]) == 0
    assert path.stat().st_mtime_ns == before

    named = [*table[:-1], f"{tmp_path}/third", *words, "--no-qc", "--initial"]
    np.savetxt(secret / "start.txt", np.eye(4))
    monkeypatch.chdir(secret)  # the images are named without a folder then
    named[2] = "pairs.csv"
    path = tmp_path / "third/one/report.json"
    for more, known in (([], True), (["--share"], False)):
        assert main([*named, f"{secret}/start.txt", *more]) == 0
        assert ("patient-4711" in path.read_text()) == known
    shutil.rmtree(secret)


def test_the_command_of_a_network_loses_its_folders():
    report = {"network": {"command": "lganet-fast train /home/me/a.toml"}, "n": [1, ("/x/y",)]}
    assert named_only(report, ["/x/y"]) == {
        "network": {"command": "lganet-fast train a.toml"},
        "n": [1, ("y",)],
    }
    assert named_only(report, []) == report
