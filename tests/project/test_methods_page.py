"""docs/methods.md tells the truth of every network: names, sizes, parameters, checkpoints."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from lganet_fast import models
from lganet_fast.models.registry import network_class
from lganet_fast.models.sizes import smallest_that_fits

TEXT = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in re.findall(r"^\| (`.*) \|$", TEXT, re.MULTILINE)
    if len(cells := line.split(" | ")) == 6
}
TITLES = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \| [^|]+ \|$", TEXT, re.MULTILINE))


def test_every_method_is_listed():
    assert set(ROWS) == set(models.names())
    assert set(TITLES) == {*models.names(), "syn"}


@pytest.mark.parametrize("name", models.names())
def test_a_row_is_true(name):
    multiple, smallest, live, published, key = ROWS[name]
    with torch.device("meta"):
        network = models.create(name, (160, 192, 160))
        least = models.create(name, (1, 1, 1)).padded_size((1, 1, 1))
    assert TITLES[name] == network_class(name).title
    assert least == tuple(map(int, smallest.split("x")))
    assert sum(p.numel() for p in network.parameters()) == int(live.replace(",", ""))
    wanted = network.published_parameters()
    assert sum(map(math.prod, wanted.values())) == int(published.replace(",", ""))
    name_of_one = key.strip("`")
    assert name_of_one in wanted
    others = [other for other in models.names() if other != name]
    with torch.device("meta"):
        for other in others:
            assert name_of_one not in models.create(other, (96, 96, 96)).published_parameters()
    sides, found = smallest_that_fits((97, 97, 97), int(multiple), 1), network.padded_size
    assert all(n % int(multiple) == 0 for n in found((97, 97, 97)))
    if name not in ("lganet", "lganetpp", "groupmorph"):
        assert found((97, 97, 97)) == sides
