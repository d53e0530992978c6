"""Other processes: forked ones do not hang, spawned ones get what they need."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lganet_fast
from lganet_fast.data.dataset import Shelf, turned
from lganet_fast.models.checkpoint import PUBLISHED_CARD, Card
from lganet_fast.registration.initial_flow import card_warnings
from lganet_fast.volumes.grid import Grid

PLACE = str(Path(lganet_fast.__file__).parent.parent)
FORK = """
import os, sys, warnings
sys.path.insert(0, sys.argv[1])
import torch
from lganet_fast.runtime import machine
torch.set_num_threads(4)
torch.rand(400, 400, 40).exp().sum()
child = os.fork()
if child == 0:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        used = [machine.set_threads(n) for n in (None, 1, 4)]
    torch.rand(400, 400, 40).exp().sum()
    lines = [str(one.message) for one in caught]
    os._exit(0 if used == [1, 1, 1] and len(lines) == 1 and "by spawn" in lines[0] else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_computes_on_one_thread_and_does_not_hang():
    done = subprocess.run([sys.executable, "-c", FORK, PLACE], timeout=120, check=False)
    assert done.returncode == 0


def test_a_shelf_reaches_another_process_empty():
    shelf = Shelf(3)
    shelf.get("a", lambda: 1)
    other = pickle.loads(pickle.dumps(shelf))
    assert (other.room, other.get("a", lambda: 2)) == (3, 2)


def test_images_stored_in_other_directions():
    assert turned(np.eye(4), np.diag([2.0, 1, 1, 1])) == ""
    fault = turned(np.diag([-1.0, 1, 1, 1]), np.eye(4))
    assert fault == "must be stored in one orientation, have LAS and RAS: reorient one of them"


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (Card(), []),
        (PUBLISHED_CARD, []),
        (Card(spacing="1 x 2 x 3 mm", intensity="range"), []),
        (Card(spacing="1.05 x 2 x 3 mm"), []),
        (Card(spacing="3 x 2 x 1 mm", axis_order="z, y, x"), []),
        (
            Card(spacing="3 x 2 x 1 mm"),
            ["voxels of 3 x 2 x 1 mm, but its input has voxels of 1 x 2 x 3"],
        ),
        (Card(intensity="('clip', -1000.0, 500.0)"), ["by ('clip', -1000.0, 500.0), but"]),
    ],
)
def test_what_a_card_says_is_warned_about(card, said):
    found = card_warnings(card, Grid((4, 5, 6), np.diag([1.0, 2, 3, 1])))
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))
