"""Checkpoints, configurations and tables that claim too much, nest too deeply or are damaged."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch
from networks import SIZE

from lganet_fast import InputError, config
from lganet_fast.data.pickles import read_arrays
from lganet_fast.models import LGANetPlusPlus
from lganet_fast.models.checkpoint import FORMAT, load
from lganet_fast.runtime.csv_files import read_rows
from lganet_fast.runtime.files import staged_folder
from lganet_fast.transforms.field import DisplacementField
from lganet_fast.volumes import nifti
from lganet_fast.volumes.grid import Grid
from lganet_fast.volumes.pair_table import read_pair_table
from lganet_fast.volumes.points import read_table

FIRST = "encoder.conv0.0.weight"
DEEP = "[" * 20000


def refused(read, path, message):
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert len(str(caught.value)) <= 300
    assert str(caught.value).isprintable()


@pytest.mark.filterwarnings("ignore:.*sparse")
@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(8, 1, 3, 3, 3).to_sparse(), "no plain tensor"),
        (torch.zeros(8, 1, 3, 3, 3, device="meta"), "no plain tensor"),
        (torch.zeros(1).expand(2**20, 2**10, 3, 3, 3), "no plain tensor"),
        (torch.ones(8, 1, 3, 3, 3, dtype=torch.int64), "1 not of real numbers"),
        (torch.ones(8, 1, 3, 3, 3, dtype=torch.complex64), "1 not of real numbers"),
        (torch.full((8, 1, 3, 3, 3), 1e300, dtype=torch.float64), "1 not finite"),
    ],
)
def test_published_tensors_that_are_not_what_they_seem(tmp_path, tensor, message):
    torch.save({FIRST: tensor}, tmp_path / "a.pt")
    refused(load, tmp_path / "a.pt", message)


def test_a_flipped_bit_of_a_published_file_is_noticed(tmp_path):
    torch.save({FIRST: torch.ones(8, 1, 3, 3, 3), "b": torch.ones(4000)}, tmp_path / "a.pt")
    whole = bytearray((tmp_path / "a.pt").read_bytes())
    whole[len(whole) // 2] ^= 1
    (tmp_path / "a.pt").write_bytes(whole)
    refused(load, tmp_path / "a.pt", "in it is damaged")


def lean(path, **header):
    text = json.dumps({"__metadata__": {"format": FORMAT, "card": "{}", **header}}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filters": 8 * 10**6}, "267 missing"),
        ({"filters": 8 * 10**30}, "damaged header"),
        ({"filters": "x"}, "damaged header"),
        ({"in_channel": 10**9}, "267 missing"),
        ({"size": [1e300] * 3}, "damaged header"),
        ({"dropout": "a"}, "damaged header"),
    ],
)
def test_no_memory_is_taken_for_a_network_that_the_file_does_not_hold(tmp_path, change, message):
    made = json.dumps({**LGANetPlusPlus(SIZE).config, **change})
    refused(load, lean(tmp_path / "a.safetensors", architecture=made), message)


def test_headers_of_odd_text(tmp_path):
    path = tmp_path / "a.safetensors"
    refused(load, lean(path, format="x\ny\x1b[31m" + "z" * 900), "must have the format")
    refused(load, lean(path, architecture=DEEP), "nested too deeply")
    refused(load, lean(path, architecture="[]"), "damaged header")
    made = json.dumps(LGANetPlusPlus(SIZE).config)
    refused(load, lean(path, architecture=made, card='{"spacing": 5}'), "must hold text alone")


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b"])
def test_names_that_no_file_can_have(tmp_path, name):
    for read in (
        lambda path: nifti.load_image(path, "fixed"),
        lambda path: nifti.save_volume(
            f"{path}.nii", np.ones((2, 2, 2)), Grid((2, 2, 2), np.eye(4))
        ),
        lambda path: staged_folder(path).__enter__(),
        DisplacementField.load,
        read_table,
        read_arrays,
        load,
        config.load,
    ):
        refused(read, tmp_path / name, "cannot|not a file|not exist")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x=" + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ('extends="\\u0000"', "cannot be read"),
        ('extends="' + "a" * 5000 + '"', "cannot be read"),
        ("x=" + "9" * 5000, "is not TOML"),
        ("[data]\nlayout='pairs'\nseed=0x" + "f" * 5000, "cannot be used"),
        ("[data]\nlayout='pairs'\n[train]\nlr=0x" + "f" * 500, "must be a number above 0"),
        ('[data]\nlayout="a\\u001b[31m\\nb"', "layout must be one of"),
    ],
)
def test_odd_configurations(tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text)
    refused(config.load, tmp_path / "c.toml", message)


@pytest.mark.parametrize(
    "read", [read_table, lambda path: read_rows(path, ("x",)), read_pair_table]
)
@pytest.mark.parametrize(
    "content",
    [
        b'x,y,z\n1,"2,3\n4,5,6\n',
        b"x,y,z\n1,2,\xff\n",
        b"x,y,z\n1,2,\x00\n4,5,6,7\n",
        b"x,y,z\n" + b"1" * 200000 + b",2,3\n",
        b"x,x,y,z\n1,1,2,3\n",
        b"fixed,moving,fixed\n1,1,2\n",
    ],
)
def test_odd_tables(tmp_path, read, content):
    (tmp_path / "p.csv").write_bytes(content)
    refused(read, tmp_path / "p.csv", "p.csv")
