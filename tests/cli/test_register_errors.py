"""What `register` refuses: one line, and nothing left behind."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command import GRID, names, register

from lganet_fast.cli import main


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
    "one row": (lambda pair: save("bad.nii.gz", image(pair)[:1, :1]), "1 x 1 x 22: at least 2"),
    "2D": (lambda pair: save("bad.nii.gz", image(pair)[12]), "bad.nii.gz is 2D"),
    "one plane": (lambda pair: save("bad.nii.gz", image(pair)[:, :, 11:12]), "bad.nii.gz is 2D"),
    "time points": (
        lambda pair: save("bad.nii.gz", np.stack([image(pair)] * 3, -1)),
        "has shape 24 x 26 x 22 x 3: 3 time points, one is needed",
    ),
    "RGB": (colours, "contains colours (R/G/B), not one value"),
    "complex": (lambda pair: save("bad.nii.gz", image(pair) * 1j), "contains complex values"),
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
        "must contain labels from 0 on, found -1",
    ),
    "fractions": (
        lambda pair: (pair.fixed_labels.data * np.float32(0.5), None),
        "must contain whole numbers, found",
    ),
}


@pytest.mark.parametrize(
    "option", ["--fixed-labels", "--moving-labels", "--fixed-mask", "--moving-mask"]
)
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
        (["--threads", "0"], "threads must be a whole number from 1 to 1024, got 0"),
        (["--threads", "99999"], "threads must be a whole number from 1 to 1024, got 99999"),
        (["--smoothness", "-1"], "smoothness must be a number from 0 to"),
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
        (["--iterations", "5xx"], "must be whole numbers joined by x, such as 30x15x15x10x5"),
        (["--smoothness", "much"], "invalid float value"),
        (["--what"], "unrecognized arguments: --what"),
        (["--initial", "start.mat", "--affine"], "--affine: not allowed with argument --initial"),
        (["--initial", "one.mat", "--initial", "other.mat"], "--initial: may be given once only"),
        (["--initial", ""], "argument --initial: must not be empty"),
        (["--fixed-labels", ""], "argument --fixed-labels: must not be empty"),
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


def test_an_output_without_a_name_is_not_this_folder(files, capsys):
    before = names(".")
    with pytest.raises(SystemExit):
        register(out="")
    assert "argument --out: must not be empty" in capsys.readouterr().err
    assert names(".") == before


def test_a_transform_for_other_images(files, capsys):
    np.savetxt("far.txt", np.eye(4) + np.eye(4, k=3) * 900)
    before = names(".")
    message = "far.txt maps no part of the fixed image into the moving one"
    assert_refused(capsys, before, register("--initial", "far.txt"), message)


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
    assert_refused(
        capsys,
        before,
        register("--quiet"),
        f"cannot write {files}/out/w",
        "No space left on device",
    )


def test_memory_that_is_not_there(files, capsys, monkeypatch):
    def refuse(*arguments):
        raise MemoryError("Unable to allocate 9.9 TiB")

    monkeypatch.setattr("lganet_fast.registration.stages.read_pair", refuse)
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
