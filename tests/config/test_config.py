"""Configurations: defaults, overrides, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lganet_fast import InputError, config
from lganet_fast.config import loading, reference
from lganet_fast.data.layouts import LAYOUTS
from lganet_fast.evaluation.methods import REFINED_BY
from lganet_fast.metrics.surface_distance import PROFILES
from lganet_fast.models import LGANetPlusPlus, names
from lganet_fast.models.registry import options
from lganet_fast.nn.lgam import TOKEN_ORDERS

MINIMAL = '[data]\nlayout = "atlas"\n'


def written(folder, text, name="own.toml"):
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", config.shipped())
def test_shipped_configurations_are_read_and_written_back_the_same(name, tmp_path):
    settings = config.load(name)
    assert config.load(written(tmp_path, config.dumps(settings))) == settings
    assert settings.output.folder == f"runs/{name}"


def test_there_is_one_for_each_data_set_and_ablation():
    names = {
        *("lpba40", "ixi", "oasis", "oasis_neurite", "lung_ct", "abdomen_ct_mr", "pairs", "atlas"),
        *("lpba40_model1", "lpba40_model2", "lpba40_model3", "lpba40_published", "lpba40_2mm"),
        *("lpba40_small", "oasis_groupmorph", "synthetic"),
        *(f"lpba40_{name}" for name in ("corrmlp", "lganet", "modet", "pcnet", "pivit", "prnetpp")),
        *("lpba40_rdp", "lpba40_voxelmorph"),
    }
    assert set(config.shipped()) == names


def test_the_papers_schedule_is_the_default(tmp_path):
    train = config.load(written(tmp_path, MINIMAL)).train
    assert (train.epochs, train.decay_from, train.lr, train.final_lr) == (300, 200, 1e-4, 1e-6)
    assert (train.beta1, train.beta2, train.weight_decay, train.batch) == (0.99, 0.999, 0, 1)
    assert config.load("ixi").train.batch == 4
    published = config.load("lpba40_published").train
    assert (published.epochs, published.decay_from, published.weight_decay) == (260, 50, 5e-4)


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("lpba40_model1", (False, False, False)),
        ("lpba40_model2", (True, False, False)),
        ("lpba40_model3", (True, True, False)),
        ("lpba40", (True, True, True)),
    ],
)
def test_ablations_leave_out_what_the_paper_does(name, modules):
    settings = config.load(name)
    assert (settings.model.lgam, settings.model.fifm, settings.model.msfm) == modules
    assert settings.data == config.load("lpba40").data
    LGANetPlusPlus((48, 48, 48), **settings.model.arguments(options("lganetpp")))


def test_overrides_are_toml_values_and_bare_text():
    settings = config.load(
        "lpba40",
        [
            "data.root=/some where/else",
            "data.spacing=2",
            "model.lgam=false",
            "train.lr=1e-3",
            'data.intensity=["clip", 0, 5]',
            "data.crop=[]",
            "train.device = cuda:1",
        ],
    )
    assert settings.data.root == "/some where/else"
    assert settings.data.factors == (2, 2, 2)
    assert settings.model.lgam is False
    assert settings.train.lr == 1e-3
    assert settings.data.intensity == ("clip", 0.0, 5.0)
    assert settings.data.crop == ()
    assert settings.train.device == "cuda:1"


def test_written_values_survive(tmp_path):
    strange = 'quote " backslash \\ tab \t newline \n ü ☃'
    settings = config.load("lpba40")
    settings = dataclasses.replace(
        settings, data=dataclasses.replace(settings.data, root=strange, validation=0.25)
    )
    text = config.dumps(settings)
    assert loading.tomllib.loads(text)["data"]["root"] == strange
    assert config.load(written(tmp_path, text)) == settings


REFUSED = {
    "data.layout=bids": "data.layout must be one of 'lpba40', 'ixi', .*, got 'bids'",
    "data.rot=1": "unknown key data.rot; keys of \\[data\\] are layout, root, task, crop",
    "dta.root=1": "unknown section dta; sections are data, synthetic, model, loss, train, evaluate",
    "data.root=1": "data.root must be text, got 1",
    "data.crop=[[0, 8]]": "data.crop must be a list of 3, each a pair .*, got \\[\\[0, 8\\]\\]",
    "data.crop=[[0,8],[8,0],[0,8]]": "data.crop must be .* 0 <= from < to",
    "data.spacing=0": "data.spacing must be a whole number from 1 on, or one per axis, got 0",
    "data.spacing=[1,2]": "data.spacing must be",
    'data.intensity=["clip",5,5]': "data.intensity must be 'as-is', 'range', .* with low < high",
    'data.intensity=["percentile",0,101]': "data.intensity must be",
    "data.intensity=same": "data.intensity must be",
    "data.validation=1.5": r"data.validation must be a count \(2\) or a fraction below 1",
    "data.labels=[0]": "data.labels must be a list, each a whole number from 1 on",
    "model.dropout=1": "model.dropout must be a number from 0 on and below 1, got 1",
    "model.lgam=1": "model.lgam must be true or false, got 1",
    "loss.window=4": "loss.window must be odd, got 4",
    "loss.smoothness=nan": "loss.smoothness must be a number from 0 on, got nan",
    "train.epochs=true": "train.epochs must be a whole number from 1 on, got True",
    "train.epochs=1.0": "train.epochs must be a whole number from 1 on, got 1.0",
    "train.lr=0": "train.lr must be a number above 0, got 0",
    "train.precision=half": "train.precision must be one of 'float32', 'bf16', 'fp16', got 'half'",
    "evaluate.refine=[10,-1]": "evaluate.refine must be a list, each a whole number from 0 on",
    "lr=3": "a setting must read section.key=value, got 'lr=3'",
    "train.lr": "a setting must read section.key=value, got 'train.lr'",
}


@pytest.mark.parametrize("override", REFUSED)
def test_refuses_by_name(override):
    with pytest.raises(InputError, match=REFUSED[override]) as caught:
        config.load("lpba40", [override])
    assert "\n" not in str(caught.value)


def test_refuses_files_that_are_no_configuration(tmp_path):
    with pytest.raises(InputError, match=r"absent cannot be read: .*one of abdomen_ct_mr, atlas"):
        config.load("absent")
    with pytest.raises(InputError, match=r"own\.toml is not TOML"):
        config.load(written(tmp_path, "data = ["))
    with pytest.raises(InputError, match=r"data\.layout is missing: it must be one of 'lpba40'"):
        config.load(written(tmp_path, '[data]\nroot = "x"'))
    with pytest.raises(InputError, match=r"train must be a section, \[train\], got 3"):
        config.load(written(tmp_path, f"train = 3\n{MINIMAL}"))
    with pytest.raises(InputError, match="unknown section epochs"):
        config.load(written(tmp_path, f"epochs = 3\n{MINIMAL}"))


def test_extends_a_file_beside_it_or_a_shipped_one(tmp_path):
    written(tmp_path, 'extends = "ixi"\n[train]\nepochs = 7', "base.toml")
    settings = config.load(written(tmp_path, 'extends = "base.toml"\n[train]\nlr = 0.5'))
    assert (settings.train.epochs, settings.train.lr, settings.train.batch) == (7, 0.5, 4)
    assert settings.data == config.load("ixi").data
    with pytest.raises(InputError, match="extends must name another configuration"):
        config.load(written(tmp_path, 'extends = "own.toml"'))
    with pytest.raises(InputError, match="nowhere cannot be read"):
        config.load(written(tmp_path, 'extends = "nowhere"'))


def test_root_takes_variables_of_the_environment(monkeypatch):
    monkeypatch.setenv("SOME_DATA", "/mnt/d")
    assert str(config.load("ixi", ["data.root=${SOME_DATA}/x"]).data.folder()) == "/mnt/d/x"
    monkeypatch.delenv("SOME_DATA")
    with pytest.raises(InputError, match=r"data\.root is '\$SOME_DATA/x', but SOME_DATA is not"):
        config.load("ixi", ["data.root=$SOME_DATA/x"]).data.folder()
    with pytest.raises(InputError, match=r"data\.root must name the folder"):
        config.load("ixi", ["data.root="]).data.folder()


def test_a_section_made_in_python_is_checked_too():
    with pytest.raises(InputError, match=r"train\.batch must be a whole number from 1 on, got 0"):
        dataclasses.replace(config.load("ixi").train, batch=0)


def test_the_documentation_is_what_is_checked():
    path = Path(__file__).parents[2] / "docs" / "configuration.md"
    assert path.read_text("utf-8") == reference.page()


def test_only_a_key_without_a_default_must_be_given():
    settings = config.build({"data": {"layout": "pairs"}})
    needed = [line for line in reference.page().splitlines() if "must be given" in line]
    assert [line.split(" | ")[0] for line in needed] == ["| `layout`"]
    assert settings.model.options == {}
    assert "| `options` | `{}` |" in reference.page()


def test_the_choices_are_those_that_there_are():
    """What is told twice, since the lower rooms do not know of configurations, is the same."""
    sections = config.json_schema()["$defs"]
    for title, key, there in (
        ("Data", "layout", [*LAYOUTS, "synthetic"]),
        ("Model", "name", names()),
        ("Model", "token_order", TOKEN_ORDERS),
        ("Loss", "similarity", REFINED_BY),
        ("Evaluate", "hd95", PROFILES),
    ):
        assert sorted(sections[f"{title}Section"]["properties"][key]["enum"]) == sorted(there)


def test_the_json_schema_names_every_key_and_its_limits():
    schema = config.json_schema()
    assert list(schema["properties"]) == list(loading.SECTIONS)
    train = schema["$defs"]["TrainSection"]["properties"]
    assert train["epochs"]["minimum"] == 1
    assert train["lr"]["exclusiveMinimum"] == 0
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("key", "value"), [("root", b"x"), ("seed", 2**63), ("crop", [[]]), ("cache", 1)]
)
def test_nothing_is_turned_into_what_is_wanted(key, value):
    with pytest.raises(InputError, match=rf"data\.{key} must be") as caught:
        config.build({"data": {"layout": "pairs", key: value}})
    assert str(caught.value).endswith(f"got {value!r}")
