"""Several images a side, registered by one transform."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command import LABELS, names
from command import register as command
from synthetic import anatomy, oblique_grid, synthetic_pair, wave

from lganet_fast import InputError, register
from lganet_fast.volumes import nifti
from lganet_fast.volumes.grid import Volume

FAST = {"iterations": (15, 10), "threads": 1}
GRID = oblique_grid((24, 26, 22), (3.0, 2.8, 3.2), 10)
FINE = oblique_grid((28, 30, 28), (2.6, 2.6, 2.6), 0)


def source(volume):
    return volume.data, volume.grid.affine


@pytest.fixture(scope="module")
def pair():
    return synthetic_pair(GRID, GRID)


def half(data, grid, left):
    """The structure of one half alone; the other half is flat."""
    shown = (grid.world()[..., 0] < 0) == left
    return np.where((data > 0) & ~shown, np.float32(0.55), data).astype(np.float32)


def channels(pair):
    """The left half's structure in the first channel, the right half's in the second, on others."""
    points = FINE.world()
    for _ in range(60):
        points = FINE.world() - wave(points, pair.amplitude)
    fine = [anatomy(x)[0].astype(np.float32) for x in (FINE.world(), points)]
    fixed = [half(pair.fixed.data, GRID, True), half(fine[0], FINE, False)]
    moving = [half(pair.moving.data, GRID, True), half(fine[1], FINE, False)]
    grids = GRID.affine, FINE.affine
    return [list(zip(side, grids, strict=True)) for side in (fixed, moving)]


def error(result, pair, left):
    points = GRID.world()[(pair.fixed.data > 0) & ((GRID.world()[..., 0] < 0) == left)]
    return np.linalg.norm(result.transform.map(points) - pair.to_moving(points), axis=-1).mean()


def test_each_channel_aligns_what_it_shows(pair):
    fixed, moving = channels(pair)
    one = register(fixed[0], moving[0], **FAST)
    both = register(fixed, moving, **FAST)
    assert error(both, pair, False) < 0.75 * error(one, pair, False)
    assert error(both, pair, True) < 1.2 * error(one, pair, True)
    scores = both.report["similarity"]
    parts = scores["channels"]
    assert [part["weight"] for part in parts] == [0.5, 0.5]
    assert scores["after"] == pytest.approx(np.mean([x["after"] for x in parts]), abs=1e-5)
    assert "channels" not in one.report["similarity"]
    assert list(both.report["inputs"]) == ["fixed", "fixed_2", "moving", "moving_2"]
    (further,) = both.further
    wanted = both.transform.apply(Volume(moving[1][0], FINE, "moving"))
    np.testing.assert_array_equal(further.data, wanted.data)


def test_a_list_of_one_is_the_image_and_equal_channels_change_nothing(pair):
    images = source(pair.fixed), source(pair.moving)
    fields = [
        register(fixed, moving, iterations=(8,), channel_weights=weights).transform.displacement
        for fixed, moving, weights in (
            (*images, None),
            ([images[0]], [images[1]], None),
            ([images[0]] * 2, [images[1]] * 2, [2.0, 1.0]),
        )
    ]
    assert np.array_equal(fields[0], fields[1])
    assert np.abs(fields[0] - fields[2]).max() < 1e-2


@pytest.mark.parametrize(
    ("fixed", "moving", "weights", "message"),
    [
        (2, 1, None, "fixed is 2 images and moving is 1: a channel is one of each"),
        (0, 1, None, "fixed is missing: pass a volume, or a list with one a channel"),
        (9, 9, None, "fixed is 9 images, more than 8"),
        (2, 2, [1.0], r"channel_weights must be 2 numbers above 0, .* got \[1.0\]$"),
        (2, 2, [1.0, 0.0], r"got \[1.0, 0.0\]$"),
        (1, 1, [2.0], "channel_weights are for several channels, got one"),
        (2, 2, [1.0, float("nan")], "channel_weights must be 2 numbers above 0"),
        (2, 2, "12", "channel_weights must be 2 numbers above 0, .* got '12'"),
        (2, 2, 2, "channel_weights must be 2 numbers above 0, .* got 2"),
    ],
)
def test_what_is_refused(pair, fixed, moving, weights, message):
    sides = [source(pair.fixed)] * fixed, [source(pair.moving)] * moving
    with pytest.raises(InputError, match=message):
        register(*sides, channel_weights=weights)


def test_channels_on_the_command_line(tmp_path, monkeypatch, pair, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("fixed", "moving", "fixed_labels", "moving_labels"):
        nifti.save_volume(f"{name}.nii.gz", getattr(pair, name).data, GRID)
        nifti.save_volume(f"{name}_b.nii.gz", getattr(pair, name).data, GRID)
    words = ["--fixed", "fixed.nii.gz", "fixed_b.nii.gz", "--moving", "moving.nii.gz"]

    def run(*more, out="out"):
        from lganet_fast.cli import main

        return main(["register", *words, *more, "--out", out, "--iterations", "4", "--no-qc"])

    assert run("moving_b.nii.gz", "--channel-weights", "1", "0.5", *LABELS) == 0
    assert "warped_2.nii.gz" in names("out")
    report = json.loads(Path("out/report.json").read_text())
    assert report["settings"]["channel_weights"] == [1.0, 0.5]
    first, second = (nib.load(f"out/warped{n}.nii.gz").get_fdata() for n in ("", "_2"))
    assert np.array_equal(first, second)
    capsys.readouterr()
    assert command("--no-qc", *LABELS) == 2  # the second channel of the earlier run would stay
    assert "contains warped_2.nii.gz of an earlier run" in capsys.readouterr().err
    assert run(out="other") == 2
    assert "fixed is 2 images and moving is 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("")
    assert "argument --moving: must not be empty" in capsys.readouterr().err
