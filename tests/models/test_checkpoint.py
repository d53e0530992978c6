"""Checkpoints: the published format in and out, the lean one, and files that are neither."""

import json

import pytest
import torch
from networks import SIZE, lean_network, made_up_state, published_network
from safetensors import safe_open
from safetensors.torch import save_file

from lganet_fast import InputError
from lganet_fast.models import LGANetPlusPlus, PublishedLGANetPlusPlus
from lganet_fast.models.checkpoint import Card, export_published, load, save


@pytest.fixture(scope="module")
def state():
    return made_up_state()


def assert_same_parameters(one, other):
    other = dict(other.named_parameters())
    for name, p in one.named_parameters():
        assert torch.equal(p, other.pop(name)), name
    assert not other


@pytest.mark.parametrize("under", [None, "net"])
def test_published_file_loads(state, under, tmp_path):
    torch.save(state if under is None else {under: state, "epoch": 3}, tmp_path / "a.pth")
    found = load(tmp_path / "a.pth")
    assert not found.model.training
    assert found.model.config["size"] == SIZE
    assert found.card.intensity.startswith("[0, 1]")
    assert_same_parameters(found.model, lean_network(state))


def test_exported_file_loads_in_the_published_network(state, tmp_path):
    export_published(lean_network(state), tmp_path / "a.pth", (48, 56, 64))
    exported = torch.load(tmp_path / "a.pth", weights_only=True)
    network = PublishedLGANetPlusPlus((48, 56, 64))
    grids = {name: x.clone() for name, x in network.named_buffers()}
    network.load_state_dict(exported, strict=True)
    assert list(exported) == list(network.state_dict())
    assert all(torch.equal(exported[name], grid) for name, grid in grids.items())
    assert_same_parameters(load(tmp_path / "a.pth").model, lean_network(state))
    live = published_network(state)
    assert torch.equal(network.encoder.conv0[0].weight, live.encoder.conv0[0].weight)


def test_lean_file_holds_network_and_card(state, tmp_path):
    network = lean_network(state, dropout=0.2, token_order="spatial")
    card = Card("1 mm", "[0, 1]", "x, y, z", "made up", "train --all", "CC0")
    save(network, tmp_path / "a.safetensors", card)
    found = load(tmp_path / "a.safetensors")
    assert found.card == card
    assert found.model.config == network.config
    assert_same_parameters(found.model, network)
    assert (tmp_path / "a.safetensors").stat().st_size < 4.1 * 6_602_260


@pytest.mark.parametrize("options", [{"lgam": False}, {"token_order": "spatial"}])
def test_what_the_published_network_cannot_be_is_not_exported(options, tmp_path):
    with pytest.raises(InputError, match="published network has no"):
        export_published(LGANetPlusPlus(SIZE, **options), tmp_path / "a.pth")
    with pytest.raises(InputError, match="cannot take volumes of"):
        export_published(LGANetPlusPlus(SIZE), tmp_path / "a.pth", (50, 48, 48))
    assert not list(tmp_path.iterdir())


def test_faults_are_named(state, tmp_path):
    broken = dict(state)
    del broken["c2.bias"]
    broken["stranger"] = torch.zeros(1)
    broken["deblock4.idm.conv.bias"] = torch.zeros(5)
    broken["u4.bias"] = torch.full((64,), float("nan"))
    torch.save(broken, tmp_path / "a.pth")
    with pytest.raises(InputError) as caught:
        load(tmp_path / "a.pth")
    for part in (
        "1 missing (c2.bias)",
        "1 not of this network (stranger)",
        "1 misshapen (deblock4.idm.conv.bias (5,) instead of (64,))",
        "1 not finite (u4.bias)",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_code_in_a_file_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"net": Trap()}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="cannot read"):
        load(tmp_path / "a.pth")
    assert not (tmp_path / "sprung").exists()


def test_foreign_and_damaged_files(state, tmp_path):
    def refused(name, match):
        with pytest.raises(InputError, match=match) as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)

    refused("none.pth", "is not a file")
    (tmp_path / "text.pth").write_text("no checkpoint\n")
    refused("text.pth", "cannot read")
    (tmp_path / "empty.pth").write_bytes(b"")
    refused("empty.pth", "cannot read")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    refused("other.pth", "holds weights of none of .* such as 'weight', none is known")
    torch.save([1, 2], tmp_path / "list.pth")
    refused("list.pth", "holds a list, no state dict")
    torch.save(state, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    refused("half.pth", "cannot read")

    (tmp_path / "text.safetensors").write_text("no checkpoint\n")
    refused("text.safetensors", "cannot read")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    refused("other.safetensors", "holds weights of none of")
    save(LGANetPlusPlus(SIZE), tmp_path / "good.safetensors")
    with safe_open(tmp_path / "good.safetensors", framework="pt") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for field, value in (
        ("architecture", json.dumps({"size": SIZE, "depth": 9})),
        ("architecture", json.dumps({"size": 48})),
        ("architecture", "{"),
        ("card", json.dumps([1])),
    ):
        save_file(tensors, tmp_path / "bad.safetensors", {**header, field: value})
        refused("bad.safetensors", "damaged header")
    wrong = json.dumps({"size": SIZE, "filters": 7})
    save_file(tensors, tmp_path / "bad.safetensors", {**header, "architecture": wrong})
    refused("bad.safetensors", "filters must be a multiple of 8, got 7")
    del tensors["msfm.u4.bias"]
    save_file(tensors, tmp_path / "bad.safetensors", header)
    refused("bad.safetensors", r"1 missing \(msfm\.u4\.bias\)")
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        save(LGANetPlusPlus(SIZE), tmp_path / "a.pth")
