"""The command that evaluates, on a made-up data set: files, resuming, ranks, methods."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import layouts
import numpy as np
import pytest
import torch

from lganet_fast import LGANetPlusPlus, config
from lganet_fast.cli import main
from lganet_fast.data import open_split
from lganet_fast.data.pair_files import Item
from lganet_fast.errors import InputWarning
from lganet_fast.evaluation import evaluate, methods, run
from lganet_fast.evaluation.levels import level_flows
from lganet_fast.metrics.scores import dice, hd95
from lganet_fast.models.checkpoint import Card, save
from lganet_fast.models.inference import network_flow, open_checkpoint
from lganet_fast.nn.encoder import Encoder
from lganet_fast.registration.pairwise import register
from lganet_fast.registration.settings import check_settings
from lganet_fast.volumes import nifti
from lganet_fast.volumes.grid import Grid

FIGURES = ["labels.png", "metrics.png", "slices.png"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The settings of an LPBA40 folder with two test pairs, 20 x 24 x 28 voxels."""
    return layouts.write("lpba40", tmp_path_factory.mktemp("lpba40"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Checkpoints of one small network with flows of some voxels, for either axis order."""
    torch.manual_seed(1)
    model = LGANetPlusPlus((48, 48, 48), lgam=False, fifm=False, msfm=False)
    for level in (1, 2, 3):
        torch.nn.init.normal_(model.get_submodule(f"deblock{level}").flow.weight, std=0.02)
    torch.nn.init.normal_(model.deblock4.flows.weight, std=0.02)
    folder = tmp_path_factory.mktemp("weights")
    for order in ("xyz", "zyx"):
        save(model, folder / f"{order}.safetensors", Card(axis_order=order))
    return folder


def loaded(place, *settings):
    return config.load("lpba40", [*place, "train.device=cpu", *settings])


def words(place, out, *more):
    settings = [w for setting in (*place, "train.device=cpu") for w in ("--set", setting)]
    return ["evaluate", "lpba40", "--out", str(out), *settings, *more]


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_without_a_method_the_images_are_scored_as_they_are(place, tmp_path, capsys):
    assert main(words(place, tmp_path)) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "cases",
        "cases.csv",
        "figures",
        "labels.csv",
        "summary.json",
        "tables.md",
        "tables.tex",
    ]
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == FIGURES
    cases, labels = rows(tmp_path / "cases.csv"), rows(tmp_path / "labels.csv")
    assert [row["case"] for row in cases] == ["S02_to_S01", "S03_to_S01"]
    data = open_split(loaded(place), "test")
    for number, row in enumerate(cases):
        sample = data[number]
        names = [21, 22, 61, 182]
        scores = dice(sample.fixed_labels, sample.moving_labels, names)
        distances = hd95(sample.fixed_labels, sample.moving_labels, (1, 1, 1), names)
        own = [x for x in labels if x["case"] == row["case"]]
        assert [float(x["dice"]) for x in own] == pytest.approx(list(scores.values()), rel=1e-6)
        assert float(row["dice"]) == pytest.approx(np.mean(list(scores.values())), rel=1e-6)
        assert float(row["hd95_mm"]) == pytest.approx(np.mean(list(distances.values())), rel=1e-6)
        assert (row["njd_percent"], row["tre_mm"], row["labels"]) == ("0", "nan", "4")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["metrics"]["dice"]["mean"] == pytest.approx(
        np.mean([float(row["dice"]) for row in cases])
    )
    printed = capsys.readouterr().out
    assert printed.startswith((tmp_path / "tables.md").read_text())
    assert "| Before |" in printed


def test_scored_cases_are_not_done_again_until_settings_change(place, tmp_path, monkeypatch):
    done = []
    real = run.run_case

    def counted(seen, full, *rest):
        done.append(full.name)
        return real(seen, full, *rest)

    monkeypatch.setattr(run, "run_case", counted)
    monkeypatch.setattr(run, "draw", lambda *_: None)
    evaluate(loaded(place), out=tmp_path)
    first = (tmp_path / "cases.csv").read_text()
    assert len(done) == 2
    (tmp_path / "cases" / "S03_to_S01.json").write_text('{"cut')
    evaluate(loaded(place, "data.cache=false"), out=tmp_path)
    assert done[2:] == ["S03_to_S01"]
    again = (tmp_path / "cases.csv").read_text()
    assert [line.split(",")[:4] for line in again.splitlines()] == [
        line.split(",")[:4] for line in first.splitlines()
    ]
    evaluate(loaded(place, "evaluate.hd95=learn2reg"), out=tmp_path)
    assert len(done) == 5
    assert "hd95_voxels" in rows(tmp_path / "cases.csv")[0]


def test_a_case_of_other_files_is_done_again(tmp_path, monkeypatch):
    place = layouts.write("lpba40", tmp_path / "data")
    monkeypatch.setattr(run, "draw", lambda *_: None)
    evaluate(loaded(place), out=tmp_path / "out")
    before = rows(tmp_path / "out" / "cases.csv")
    path = next((tmp_path / "data").rglob("label/S03.*"))
    labels = nifti.load_labels(path, "labels")
    nifti.save_volume(path, np.roll(labels.data, 2, 0), labels.grid)
    evaluate(loaded(place), out=tmp_path / "out")
    after = rows(tmp_path / "out" / "cases.csv")
    assert after[0] == before[0]
    assert after[1]["dice"] != before[1]["dice"]


def test_an_item_is_every_file_of_its_format(tmp_path):
    for name in ("a.hdr", "a.img", "b.nii"):
        (tmp_path / name).touch()
    item = Item("a", tmp_path / "a.img", tmp_path / "b.nii")
    assert [path.name for path in item.files] == ["a.img", "b.nii", "a.hdr"]


def test_a_killed_run_leaves_whole_cases_alone(place, tmp_path, monkeypatch):
    real = run.run_case

    def killed(seen, full, *rest):
        if full.name.startswith("S03"):
            raise KeyboardInterrupt
        return real(seen, full, *rest)

    monkeypatch.setattr(run, "run_case", killed)
    assert main(words(place, tmp_path, "--quiet")) == 130
    assert [p.name for p in tmp_path.rglob("*.*")] == ["S02_to_S01.json"]


def test_refined_alone_is_what_register_finds(place, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "draw", lambda *_: None)
    settings = loaded(place, "evaluate.refine=[20, 10]", "data.spacing=2", "evaluate.split=val")
    folder = evaluate(settings, out=tmp_path, name="Mine")
    sample = open_split(loaded(place), "val")[0]
    sources = [(x, sample.affine) for x in (sample.fixed, sample.moving)]
    found = register(*sources, iterations=(20, 10), device="cpu")
    moved = found.transform.voxels(Grid(sample.fixed.shape, sample.affine))
    flow = torch.from_numpy(moved).permute(3, 0, 1, 2)[None]
    labels = methods.moved_labels(sample.moving_labels, flow, settings.evaluate)
    wanted = dice(sample.fixed_labels, labels)
    (case,) = rows(folder / "cases.csv")
    assert float(case["dice"]) == pytest.approx(np.mean(list(wanted.values())), abs=2e-3)
    before = dice(sample.fixed_labels, sample.moving_labels)
    assert float(case["dice"]) > np.mean(list(before.values())) + 0.03
    assert "| Mine |" in (folder / "tables.md").read_text()


def test_a_network_is_scored_drawn_level_by_level_and_refined(place, weights, tmp_path):
    settings = loaded(place, "evaluate.refine=[2]", "evaluate.split=val")
    folder = evaluate(settings, weights / "xyz.safetensors", tmp_path)
    assert sorted(p.name for p in (folder / "figures").iterdir()) == sorted(
        [*FIGURES, "levels.png"]
    )
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["method"] == "LGANet++ + instance optimisation"
    assert summary["metrics"]["sdlogj"]["mean"] > 0


def test_a_network_that_is_fed_otherwise_than_it_was_trained(place, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "draw", lambda *_: None)
    network = open_checkpoint(weights / "xyz.safetensors")
    card = Card("4 x 4 x 4 mm", "('clip', -1000.0, 500.0)", axis_order="x, y, z")
    save(network.model, tmp_path / "n.safetensors", card)
    settings = loaded(place, "evaluate.split=val")
    with pytest.warns(InputWarning) as said:
        evaluate(settings, tmp_path / "n.safetensors", tmp_path / "out")
    assert [str(one.message) for one in said] == [
        "the network was trained on voxels of 4 x 4 x 4 mm, but its input has voxels of "
        "1 x 1 x 1 mm",
        "the network was trained on intensities scaled by ('clip', -1000.0, 500.0), but its input "
        f"is scaled by {settings.data.intensity}",
    ]


def test_refining_starts_from_the_flow_that_there_is(place):
    sample = open_split(loaded(place), "test")[0]
    axes = torch.meshgrid(*(torch.linspace(0, 3, n) for n in sample.fixed.shape), indexing="ij")
    flow = torch.stack([torch.sin(x) for x in axes])[None]
    idle = check_settings(iterations=(0,), checkpoint="some")
    inside = torch.from_numpy(sample.fixed > 0)
    found = methods.refine(flow, sample, idle)
    torch.testing.assert_close(found[..., inside], flow[..., inside], atol=1e-4, rtol=0)
    stretched = replace(sample, affine=np.diag([2.0, -1.0, 0.5, 1.0]))
    found = methods.refine(flow, stretched, idle)
    torch.testing.assert_close(found[..., inside], flow[..., inside], atol=0.05, rtol=0)
    found = methods.refine(flow, sample, replace(idle, iterations=(2,)))
    assert (found - flow)[..., inside].abs().mean() > 0.01


def test_flows_of_all_levels_end_in_the_networks_own(place, weights):
    sample = open_split(loaded(place), "test")[0]
    moving, fixed = sample.tensors()
    checkpoint = open_checkpoint(weights / "zyx.safetensors")
    flows = level_flows(checkpoint, moving, fixed)
    assert [flow.shape for flow in flows] == [(1, 3, *sample.fixed.shape)] * 4
    torch.testing.assert_close(flows[-1], network_flow(checkpoint, moving, fixed))
    roughness = [flow.diff(dim=2).diff(dim=2).abs().mean() for flow in flows]
    assert roughness[0] < roughness[-1]
    assert not checkpoint.model.deblock4._forward_hooks


def test_a_fixed_image_of_several_pairs_is_encoded_once(place, weights, monkeypatch):
    checkpoint = open_checkpoint(weights / "xyz.safetensors")
    method = methods.method_of(loaded(place), checkpoint, torch.device("cpu"))
    data, encoded, encode = open_split(loaded(place), "test"), [], Encoder.forward
    pairs = [data[number] for number in range(2)]
    wanted = [network_flow(checkpoint, *pair.tensors()) for pair in pairs]

    def noted(self, x):
        encoded.append(len(x))
        return encode(self, x)

    monkeypatch.setattr(Encoder, "forward", noted)
    found = [method.flow(pair, pair) for pair in pairs]
    assert encoded == [1, 1, 1]
    assert all(map(torch.equal, found, wanted))


def test_a_coarse_flow_becomes_a_fine_one():
    axes = torch.meshgrid(*(torch.arange(n).float() for n in (6, 5, 4)), indexing="ij")
    # A linear map of the world, in coarse voxels of 2 x 1 x 3 fine ones.
    flow = torch.stack([0.1 * axes[0] + 1, 0.2 * axes[0] - 0.1 * axes[1], 0.3 * axes[2]])[None]
    fine = methods.finer(flow, (2, 1, 3), (13, 5, 12))
    assert fine.shape == (1, 3, 13, 5, 12)
    at = [torch.arange(n).float() for n in (12, 5, 12)]
    coarse = (at[0] - 0.5) / 2, at[1], (at[2] - 1) / 3
    inner = slice(1, 11)
    expected = 2 * (0.1 * coarse[0] + 1)[inner]
    torch.testing.assert_close(fine[0, 0, inner, 2, 5], expected)
    torch.testing.assert_close(
        fine[0, 1, inner, 2, 5], (0.2 * coarse[0] - 0.1 * coarse[1][2])[inner]
    )
    torch.testing.assert_close(fine[0, 2, 4, 2, inner], 3 * (0.3 * coarse[2])[inner])
    torch.testing.assert_close(fine[0, :, 12], fine[0, :, 11])
    assert methods.finer(flow, (1, 1, 1), (6, 5, 4)) is flow


def test_published_warp_is_grid_sample_without_aligned_corners(place):
    random = torch.Generator().manual_seed(0)
    size = (9, 8, 7)
    image = torch.rand(1, 1, *size, generator=random)
    flow = torch.rand(1, 3, *size, generator=random) * 2 - 1
    # The published scripts scale p + u to [-1, 1] by S - 1, then read with corners not aligned.
    lines = torch.stack(torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij"))[None]
    places = lines + flow
    scaled = [2 * (places[:, a] / (n - 1) - 0.5) for a, n in enumerate(size)]
    grid = torch.stack(scaled[::-1], -1)
    wanted = torch.nn.functional.grid_sample(image, grid, align_corners=False)
    section = loaded(place, "evaluate.warp=published").evaluate
    found = methods.moved_image(image[0, 0].numpy(), flow, section)
    np.testing.assert_allclose(found, wanted[0, 0].numpy(), atol=1e-5)
    labels = (image[0, 0] * 5).round().int().numpy()
    nearest = torch.nn.functional.grid_sample(
        torch.from_numpy(labels)[None, None].float(), grid, mode="nearest", align_corners=False
    )
    moved = methods.moved_labels(labels, flow, section)
    np.testing.assert_array_equal(moved, nearest[0, 0].int().numpy())
    assert moved.dtype == labels.dtype


def test_labels_move_by_nearest_or_by_the_largest_share(place):
    labels = np.full((4, 4, 4), 5, np.int32)
    labels[1, 1, 1] = 3
    flow = torch.full((1, 3, 4, 4, 4), 0.3)  # 3 has 0.7^3 = 0.34 of the weight at (1, 1, 1)
    for word, label in (("nearest", 3), ("trilinear", 5)):
        section = loaded(place, f"evaluate.interpolation={word}").evaluate
        assert methods.moved_labels(labels, flow, section)[1, 1, 1] == label
        assert methods.moved_labels(labels, flow / 3, section)[1, 1, 1] == 3


def test_landmarks_and_voxels_of_another_size(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "draw", lambda *_: None)
    settings = layouts.write("pairs", tmp_path / "data")
    folder = evaluate(
        config.load("pairs", [*settings, "train.device=cpu", "evaluate.hd95=learn2reg"]),
        out=tmp_path / "out",
    )
    found = rows(folder / "cases.csv")
    sample = open_split(config.load("pairs", settings), "test")[0]
    apart = np.linalg.norm((sample.fixed_points - sample.moving_points) * 1.5, axis=1).mean()
    assert float(found[0]["tre_mm"]) == pytest.approx(apart, abs=1e-6)
    assert not math.isnan(float(found[0]["hd95_voxels"]))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--compare", "A=nowhere.csv"], "cannot read nowhere.csv"),
        (["--compare", "A=cases.csv", "--compare", "A=cases.csv"], "names one method twice"),
        (["--compare", "Before=cases.csv"], "two methods are called Before"),
        (["--checkpoint", "nowhere.pt"], "nowhere.pt is not a file"),
        (["--set", "evaluate.refine=[1,2,3,4,5,6,7,8,9]"], "iterations must be 1 to 8"),
        (["--set", "data.testing=0", "--set", "evaluate.split=val"], "no pair in its split"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(place, tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.chdir(tmp_path)
    Path("cases.csv").write_text("case,dice\nS02_to_S01,0.5\n")
    where = [x.replace("validation=1", "validation=0") for x in place]
    assert main(words(where, "out", "--quiet", *more)) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not Path("out/cases.csv").exists()


def test_the_folder_is_named_after_the_method(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "draw", lambda *_: None)
    assert evaluate(loaded(place)) == Path("runs/lpba40/evaluation/before-test")
    refined = loaded(place, "evaluate.refine=[1]", "evaluate.split=val")
    assert evaluate(refined) == Path("runs/lpba40/evaluation/refined-val")
