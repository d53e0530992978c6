"""Every figure is drawn for the methods asked for, from made-up data sets."""

from __future__ import annotations

import layouts
import pytest

from lganet_fast.reproduction import Reproduction

CPU = ["train.device=cpu", "train.threads=1"]
LIGHT = ["model.lgam=false", "model.fifm=false", "model.msfm=false"]
SHORT = ["train.epochs=1", "train.steps_per_epoch=1", "train.picture_every=0", "data.validation=0"]


def figures(name, config, methods, folder, *more):
    """The names of a figure's files; each must be a picture."""
    data = layouts.write(config, folder / "data", (32, 32, 32))
    wanted = Reproduction(name, folder / "runs", methods, [*data, *CPU, *more])
    wanted.carry_out(wanted.plan(), True, lambda _: None)
    found = sorted((wanted.write() / "figures").iterdir())
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in found)
    return [path.name for path in found]


@pytest.mark.parametrize(
    ("name", "config", "kind"),
    [
        ("figure5", "lpba40", "slices"),
        ("figure6", "lung_ct", "slices"),
        ("figure7", "abdomen_ct_mr", "slices"),
        ("figure9", "lpba40", "labels"),
    ],
)
def test_a_figure_of_each_method(name, config, kind, tmp_path):
    assert figures(name, config, ["before"], tmp_path) == [f"before_{kind}.png"]


def test_flows_level_by_level(tmp_path):
    found = figures("figure8", "lpba40", ["lganetpp"], tmp_path, *LIGHT, *SHORT)
    assert found == ["lganetpp_levels.png"]
