"""Synthetic pairs: the flow is the true one, contrasts are independent, pair i never changes."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from lganet_fast import config
from lganet_fast.config.schema import DataSection, SyntheticSection
from lganet_fast.data import check, open_split
from lganet_fast.data.synthetic import SyntheticPairs, contrast, draw, labels, noise
from lganet_fast.errors import InputError
from lganet_fast.ops import warp
from lganet_fast.training import train
from lganet_fast.training.batch import collate
from lganet_fast.training.objective import Objective

SMALL = SyntheticSection(size=(32, 40, 36), spacing=5, pairs=3)
DATA = DataSection(layout="synthetic")


@pytest.fixture(scope="module", autouse=True)
def nilearn():
    pytest.importorskip("nilearn")


@pytest.mark.parametrize("size", [(32, 40, 36), (33, 31, 40)])
def test_the_flow_leads_to_the_same_place_of_the_label_map(size):
    source = noise.Source(3)
    still, moved = (noise.Deformation(source, size, 4.0, 1.0) for _ in range(2))
    flow = still.flow_to(moved)
    found = warp(moved.target, flow, padding="border")
    inside = (slice(None), slice(None), *[slice(8, -8)] * 3)
    error = (found - still.target)[inside].norm(dim=1)
    assert flow[inside].norm(dim=1).mean() > 1
    assert error.mean() < 0.1
    assert error.max() < 0.6
    wrong = (warp(moved.target, -flow, padding="border") - still.target)[inside].norm(dim=1)
    assert wrong.mean() > 10 * error.mean()


def test_deformations_are_one_to_one():
    source = noise.Source(0)
    for _ in range(4):
        flow = noise.exponential(noise.velocity(source, (40, 40, 40), 2.0, 1.5), (40, 40, 40))
        columns = (
            torch.stack(torch.gradient(flow[0], dim=(1, 2, 3)), 1)
            + torch.eye(3)[..., None, None, None]
        )
        assert torch.linalg.det(columns.permute(2, 3, 4, 0, 1)).min() > 0


def test_an_inverse_affine_map_is_one():
    matrix = noise.affine(noise.Source(1), 2.0)
    places = noise.centred((5, 6, 7), torch.zeros(1, dtype=torch.float64))
    there = noise.mapped(matrix, places, (5, 6, 7))
    back = noise.mapped(noise.inverse(matrix), there, (5, 6, 7))
    torch.testing.assert_close(back, places, rtol=0, atol=1e-12)
    assert (there - places).abs().max() > 0.1


def test_labels_are_of_the_template_or_of_random_shapes():
    source = noise.Source(2)
    whole = labels.template_tissues((60, 60, 60), 5)
    cut = labels.template_tissues((20, 24, 60), 5)
    assert torch.equal(cut, whole[:, :, 20:40, 18:42])
    brain = labels.brain(source, (32, 40, 36), 5)
    tissues = labels.template_tissues((32, 40, 36), 5)
    assert torch.equal(brain == 0, tissues == 0)
    assert torch.equal((brain - 1)[brain > 0] % 3 + 1, tissues[tissues > 0])
    assert 8 < len(brain.unique()) <= 3 * 24 + 1
    shapes = labels.shapes(source, (32, 40, 36), 5)
    assert 5 < len(shapes.unique()) <= 17
    assert 0.2 < (shapes == 0).float().mean() < 0.9
    assert not torch.equal(labels.brain(source, (32, 40, 36), 5), brain)


def test_images_of_a_map_differ_in_contrast_and_are_scaled():
    source = noise.Source(5)
    brain = labels.brain(source, (32, 40, 36), 5)
    images = [contrast.image_of(source, brain, True) for _ in range(12)]
    for image in images:
        assert image.shape == brain.shape
        assert image.dtype == torch.float32
        assert image.min() == 0
        assert 0.5 < image.max() <= 1
        assert image[brain == 0].max() == 0
    inside = torch.stack([image[brain > 0] for image in images])
    related = torch.corrcoef(inside)
    others = related[~torch.eye(len(images), dtype=torch.bool)]
    assert others.min() < -0.2  # inverted contrasts are among them
    assert others.max() > 0.2


def test_slices_become_thick_and_views_are_cut():
    image = torch.rand(1, 1, 24, 24, 24)
    thick = contrast.thick_slices(noise.Source(0), image)
    assert thick.shape == image.shape
    assert thick.std() < 0.9 * image.std()
    cuts = [contrast.cut_view(noise.Source(n), image) for n in range(6)]
    assert any((cut == 0).any() for cut in cuts)
    assert all((cut == 0).float().mean() < 0.2 for cut in cuts)


def test_pair_i_is_always_the_same_and_each_is_another():
    pairs = SyntheticPairs(SMALL, DATA, "train")
    one, again, other = pairs[0], SyntheticPairs(SMALL, DATA, "train")[0], pairs[1]
    assert len(pairs) == 3
    for name in ("moving", "fixed", "moving_labels", "fixed_labels", "flow"):
        assert np.array_equal(getattr(one, name), getattr(again, name))
        assert not np.array_equal(getattr(one, name), getattr(other, name))
    for changed in (
        SyntheticPairs(SMALL, DATA, "val"),
        SyntheticPairs(SMALL, DataSection(layout="synthetic", seed=1), "train"),
    ):
        assert not np.array_equal(changed[0].fixed, one.fixed)
    assert one.fixed.shape == (32, 40, 36)
    assert one.flow.shape == (3, 32, 40, 36)
    assert one.grid.spacing.tolist() == [5, 5, 5]
    with pytest.raises(IndexError):
        pairs[3]


@pytest.mark.parametrize("most", [1, 16])
def test_labels_to_score_are_some_of_all(most):
    section = SyntheticSection(size=(32, 40, 36), spacing=5, labels=most, shapes=0.0)
    pair = draw(noise.Source(1), section)
    names = torch.cat([pair.fixed_labels, pair.moving_labels]).unique()
    assert 1 < len(names) <= most + 1


RUN = [
    *("synthetic.size=[32,32,32]", "synthetic.spacing=6", "train.epochs=2"),
    *("train.steps_per_epoch=3", "train.picture_every=0", "train.device=cpu", "train.warm_up=0"),
]


def test_a_network_trains_on_them_and_resumes_exactly(tmp_path):
    def settings(name, *more):
        return config.load("synthetic", [*RUN, *more, f"output.folder={tmp_path}/{name}"])

    train(settings("whole"))
    train(settings("parts", "train.epochs=1"))
    train(settings("parts"), resume=True)
    lines = [
        [
            {k: v for k, v in json.loads(line).items() if k not in ("seconds", "lr")}
            for line in (tmp_path / name / "log.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "parts")
    ]
    steps = [line for line in lines[0] if "loss" in line]
    assert len(steps) == 6
    assert list(steps[0]["parts"]) == ["smoothness", "dice", "flow"]
    # the rate of the first epoch is the same; the second has the same state to start from
    for one, other in itertools.islice(zip(*lines, strict=True), 4):
        assert one == other


def test_what_needs_files_or_a_flow_says_so(tmp_path):
    settings = config.load("synthetic", RUN)
    assert check(settings) == ["data.layout synthetic has no files: its pairs are drawn at random"]
    pairs = open_split(settings, "val")
    assert len(pairs) == 8
    batch = replace(collate([pairs[0]], torch.device("cpu")), flow=None)
    with pytest.raises(InputError, match=r"loss\.flow needs the true flow"):
        Objective(settings.loss)(torch.zeros(1, 3, 32, 32, 32), batch)
