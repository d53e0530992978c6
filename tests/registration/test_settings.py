"""Defaults stand in one table, and everything takes them from there."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest

from lganet_fast import register
from lganet_fast.cli import build_parser
from lganet_fast.losses.dissimilarity import SIMILARITIES
from lganet_fast.registration.cohort import register_pairs
from lganet_fast.registration.settings import (
    AFTER_NETWORK,
    DEFAULTS,
    ITERATIONS,
    OUTPUTS,
    POINTS_WEIGHT,
    RUN,
    SMOOTHNESS,
    TUNING,
    Run,
    Sources,
    check_settings,
)

TABLE = {**vars(DEFAULTS), **vars(RUN), "iterations": None, "smoothness": None}
TABLE["points_weight"] = None  # with points: POINTS_WEIGHT
TABLE["channel_weights"] = None  # equal ones
del TABLE["again"]  # goes with the preset


def test_the_functions_take_them_from_the_table():
    for function, lacking in (
        (register, set()),
        (register_pairs, {"overwrite", "channel_weights"}),
    ):
        parameters = inspect.signature(function).parameters
        found = {name: x.default for name, x in parameters.items() if name in TABLE}
        wanted = {name: value for name, value in TABLE.items() if name not in lacking}
        if function is register_pairs:
            wanted["out"] = inspect.Parameter.empty
        assert found == wanted


def test_the_command_takes_them_from_the_table():
    given = vars(build_parser(["register"]).parse_args(["register", "--out", "o"]))
    given.setdefault("initial", DEFAULTS.initial)  # two options set it: neither has a default
    wanted = {**TABLE, "out": "o", "quiet": False}  # the command shows how far it is
    assert {name: given[name] for name in wanted} == wanted


def test_what_is_left_out_goes_with_the_rest():
    assert check_settings() == DEFAULTS
    assert check_settings(checkpoint="c").iterations == AFTER_NETWORK
    for name, smoothness in SMOOTHNESS.items():
        assert check_settings(name) == replace(DEFAULTS, similarity=name, smoothness=smoothness)


def test_every_similarity_is_tuned():
    assert list(TUNING) == list(SIMILARITIES)


def test_the_text_of_register_names_them():
    text = " ".join(register.__doc__.split())
    assert f"by default {ITERATIONS}" in text
    assert f"{AFTER_NETWORK}" in text
    assert f"None for {POINTS_WEIGHT}" in text


def test_what_is_written_goes_by_what_is_asked_for():
    pair, labelled = Sources("f", "m"), Sources("f", "m", moving_labels="l")
    assert set(OUTPUTS) - set(RUN.outputs(pair)) == {"warped_labels.nii.gz"}
    assert Run(qc=False).outputs(labelled) == [name for name in OUTPUTS if name != "qc.html"]
    assert list(labelled.given()) == ["fixed", "moving", "moving_labels"]


@pytest.mark.parametrize("name", ["iterations", "smoothness", "similarity"])
def test_a_misspelt_option_is_refused_at_once(name):
    with pytest.raises(TypeError, match=f"{name}s"):
        register("f", "m", **{f"{name}s": 1})
