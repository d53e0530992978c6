"""A checkpoint that is damaged, foreign or of another method gets one line that says so."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lganet_fast import InputError, models
from lganet_fast.models.checkpoint import load, load_into, published, save

SMALL = {
    "rdp": {"channels": 2},
    "pcnet": {"channels": 4},
    "modet": {"channels": 1},
    "prnetpp": {"first_channel": 1},
    "corrmlp": {"enc_channels": 1, "dec_channels": 4},
    "lganet": {"filters": 4},
}


def create(name):
    return models.create(name, (32, 32, 32), **SMALL.get(name, {}))


def said(call, *arguments):
    """The message of the InputError that a call ends with: one line."""
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", models.names())
def test_a_fault_in_published_weights_is_named(name):
    with torch.device("meta"):
        network = create(name)
    state = {key: torch.zeros(shape) for key, shape in network.published_parameters().items()}
    assert published("a.pth", state, {}).model.name == name
    title, keys = network.title, list(state)
    middle = keys[len(keys) // 2]
    faults = {
        "1 missing": {key: x for key, x in state.items() if key != middle},
        "1 not of this network (stranger)": {**state, "stranger": torch.zeros(2)},
        "not of real numbers": {**state, middle: state[middle].int()},
        "not finite": {**state, middle: state[middle] / 0},
    }
    for fault, wrong in faults.items():
        message = said(published, "a.pth", wrong, {})
        assert message.startswith(f"a.pth looks like {title} (")
        assert fault in message
    for key in (keys[0], middle, keys[-1]):
        for shape in ((), (5,), (7, 1, 3, 3, 3)):
            message = said(published, "a.pth", {**state, key: torch.zeros(shape)}, {})
            assert message.startswith(f"a.pth looks like {title}")
    for part in (keys[: len(keys) // 3], keys[len(keys) // 3 :]):
        message = said(published, "a.pth", {key: state[key] for key in part}, {})
        assert f"looks like {title}" in message


@pytest.mark.parametrize("name", models.names())
def test_weights_of_another_method_are_refused(name, tmp_path):
    other = "pivit" if name == "voxelmorph" else "voxelmorph"
    save(create(other), tmp_path / "a.safetensors")
    network, path = create(name), tmp_path / "a.safetensors"
    wanted = f"{path} contains weights of {create(other).title}, not of {network.title}"
    assert said(load_into, network, path) == wanted
    with safe_open(path, framework="pt") as file:
        header = {**file.metadata(), "method": name}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(tensors, path, header)
    message = said(load, path)
    assert "__init__" not in message
    wrong = f"has a damaged header: its method is {network.title}, which has no "
    assert wrong in message or f"looks like {network.title}" in message


def test_what_a_file_is_is_said(tmp_path):
    network, path = create("voxelmorph"), tmp_path / "a.pth"

    def of(content):
        torch.save(content, path)
        return said(load, path)

    assert "holds a Tensor, no state dict" in of(torch.zeros(3))
    assert "holds a dict of 'epoch', 'loss', no state dict" in of({"epoch": 3, "loss": 0.1})
    assert "holds nothing" in of({})
    run = {"network": network.state_dict(), "settings": {}, "generators": []}
    assert "state of a training, whose weights are in last.safetensors beside it" in of(run)
    foreign = {f"transformer.layers.{k}.weight": torch.zeros(2) for k in range(9)}
    message = of({"state_dict": foreign})
    assert "weights of none of modet, rdp" in message
    assert "of its 9 names, such as 'transformer.layers.0.weight', none is known" in message
    old = {f"unet_model.downarm.{k}.main.weight": torch.zeros(2) for k in range(4)}
    assert "VoxelMorph from before February 2021" in of({**old, "flow.weight": torch.zeros(2)})

    torch.save(network.state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "it is cut short, or damaged at its end" in said(load, path)
    path.write_bytes(whole[:5000] + bytes(9) + whole[5009:])
    assert "in it is damaged" in said(load, path)
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(90))
    assert "it is damaged, or not of torch.save" in said(load, path)


def test_safetensors_are_known_by_content_and_may_be_published(tmp_path):
    network = create("voxelmorph").eval()
    save(network, tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").rename(tmp_path / "a.pth")
    assert load(tmp_path / "a.pth").model.name == "voxelmorph"
    state = {key: x.contiguous() for key, x in network.state_dict().items()}
    save_file(state, tmp_path / "b.safetensors", {"format": "pt"})
    found = load(tmp_path / "b.safetensors").model.state_dict()
    assert all(torch.equal(x, state[key]) for key, x in found.items())
    save_file(state, tmp_path / "c.safetensors", {"format": "lganet_fast 9"})
    assert 'must have the format "lganet_fast 1", got "lganet_fast 9"' in said(
        load, tmp_path / "c.safetensors"
    )
    save_file({"weight": torch.zeros(3)}, tmp_path / "d.safetensors")
    assert "weights of none of" in said(load, tmp_path / "d.safetensors")
