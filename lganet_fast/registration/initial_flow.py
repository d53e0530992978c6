"""The flow that a trained network predicts for a pair, on the pair's working grid."""

from __future__ import annotations

import re

import numpy as np
from torch import Tensor

from ..models.checkpoint import PUBLISHED_CARD, Card, Checkpoint
from ..models.inference import network_flow
from ..volumes.grid import Grid
from .optimiser import taper
from .workspace import MARGIN, Workspace

SAME_SPACING = 0.1  # relative difference of voxel sizes below which there is no warning


def card_warnings(card: Card, grid: Grid, rule: str | None = None) -> list[str]:
    """Warnings where the network's inputs differ from its card.

    grid: of the input images. rule: their intensity rule, in the words of a card; None for that of
    `register`.
    """
    found = []
    trained = [float(x) for x in re.findall(r"\d+(?:\.\d+)?", card.spacing)]
    backwards = card.axis_order.lower().startswith("z")
    own = grid.spacing[::-1] if backwards else grid.spacing
    if len(trained) in (1, 3) and not np.allclose(own, trained, rtol=SAME_SPACING):
        found.append(
            f"the network was trained on voxels of {card.spacing}, but its input has voxels of "
            f"{' x '.join(f'{x:.3g}' for x in own)} mm"
        )
    same = ("unknown", PUBLISHED_CARD.intensity, rule or "range")
    if card.intensity not in same:
        given = f"by {rule}" if rule else "to background 0 and foreground of about 1"
        found.append(
            f"the network was trained on intensities scaled by {card.intensity}, but its input is "
            f"scaled {given}"
        )
    return found


def predict(checkpoint: Checkpoint, work: Workspace, keep: bool = False) -> Tensor:
    """Predict the network's flow: (1, 3, H, W, D) in voxels of the working grid, 0 at its border.

    The network's input are the workspace's images, background 0 and foreground of about unit
    intensity. keep: as in `network_flow`.
    """
    flow = network_flow(checkpoint, work.moving, work.fixed, keep)
    return flow * taper(work.grid.shape, MARGIN).to(flow)
