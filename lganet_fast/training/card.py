"""The card in a trained network's file, which describes its input."""

from __future__ import annotations

from ..config.loading import Config
from ..data import Sample
from ..models.checkpoint import Card


def card(config: Config, sample: Sample, source: str) -> Card:
    """The card of a network trained by a configuration, read from `source`, on pairs like one."""
    data = config.data
    return Card(
        spacing=" x ".join(f"{step:.4g}" for step in sample.grid.spacing) + " mm",
        intensity=data.intensity_rule,
        axis_order="x, y, z: array axes as in the files",
        data=" ".join(filter(None, (data.layout, data.task))),
        command=f"lganet-fast train {source}".strip(),
    )
