"""The methods of an evaluation: nothing, a network or SyN, then instance optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..config.loading import Config
from ..config.schema import EvaluateSection
from ..data import Sample
from ..models.checkpoint import Checkpoint
from ..models.inference import network_flow
from ..ops import compose, warp
from ..registration.optimiser import flow_of, taper
from ..registration.pair import Pair
from ..registration.settings import Settings, check_settings
from ..registration.stages import search
from ..registration.workspace import MARGIN, field_of, prepare
from ..volumes.grid import Grid, Volume
from ..volumes.resample import channels_first, index_flow, places, read, read_nearest, turned
from ..volumes.sampling import sample_labels
from .syn import import_ants, syn_flow

REFINED_BY = {"ncc": "lncc", "mse": "mse", "mind": "mind"}


@dataclass(frozen=True, eq=False)
class Method:
    """A network or SyN (or neither), then instance optimisation (or none), on a device.

    factors: sides of the network's voxels in voxels of the result, along each axis.
    """

    checkpoint: Checkpoint | None
    refinement: Settings | None
    device: torch.device
    factors: tuple[int, int, int] = (1, 1, 1)
    syn: bool = False

    @property
    def name(self) -> str:
        """The default name in tables."""
        if self.syn:
            first = "SyN"
        elif self.checkpoint is not None:
            first = self.checkpoint.model.title
        else:
            return "Before" if self.refinement is None else "Instance optimisation"
        return first + (" + instance optimisation" if self.refinement else "")

    @torch.no_grad()
    def flow(self, seen: Sample, full: Sample) -> Tensor:
        """The flow (1, 3, H, W, D), in voxels of `full`, that registers a pair.

        seen: the pair at the network's resolution. full: the same pair at the result's resolution.
        """
        flow = torch.zeros(1, 3, *full.fixed.shape, device=self.device)
        if self.syn:
            flow = syn_flow(full).to(flow)
        elif self.checkpoint is not None:
            images = seen.tensors(self.device)
            coarse = network_flow(self.checkpoint, *images, keep=True).float()
            flow = finer(coarse, self.factors, full.fixed.shape)
        return flow if self.refinement is None else refine(flow, full, self.refinement)


def method_of(
    config: Config, checkpoint: Checkpoint | None, device: torch.device, *, syn: bool = False
) -> Method:
    """The method of a configuration.

    Raises InputError for invalid iterations, and for SyN if antspyx is missing.
    """
    if syn:
        import_ants()
    counts = config.evaluate.refine
    factors = config.data.factors if counts else (1, 1, 1)
    settings = None
    if any(counts):
        similarity = REFINED_BY[config.loss.similarity]
        settings = check_settings(similarity, counts)
    return Method(checkpoint, settings, device, factors, syn)


def finer(flow: Tensor, factors: Sequence[int], size: Sequence[int]) -> Tensor:
    """Resample a flow from boxes of `factors` voxels to the voxels: (1, 3, *size) in voxels.

    Linear between the centres of the boxes; voxels past the last whole box have its flow.
    """
    if max(factors) == 1:
        return flow
    scale = torch.tensor(factors).to(flow).reshape(1, 3, 1, 1, 1)
    whole = F.interpolate(flow * scale, scale_factor=tuple(map(float, factors)), mode="trilinear")
    ends = [n - m for n, m in zip(size, whole.shape[2:], strict=True)]
    return F.pad(whole, [0, ends[2], 0, ends[1], 0, ends[0]], mode="replicate")


def refine(flow: Tensor, sample: Sample, settings: Settings) -> Tensor:
    """Refine a flow (1, 3, H, W, D) by instance optimisation, as in `register`."""
    grid = sample.grid
    mask = None if sample.fixed_mask is None else Volume(sample.fixed_mask, grid, "fixed mask")
    moving, fixed = (Volume(x, grid, sample.name) for x in (sample.moving, sample.fixed))
    start = prepare(Pair(fixed, moving, fixed_mask=mask), np.eye(4), flow.device, settings.dtype)
    first = onto(flow, grid, start.grid).to(start.fixed)
    first *= taper(start.grid.shape, MARGIN).to(first)
    work = start.after(first)
    with torch.enable_grad():
        velocity, _ = search(start, work, settings, quiet=True)
    whole = compose(first, flow_of(velocity, work.grid.shape))
    voxels = field_of(whole, work.grid, work, grid).voxels(grid)
    return channels_first(voxels).to(flow)


def onto(flow: Tensor, grid: Grid, other: Grid) -> Tensor:
    """Resample a flow (1, 3, H, W, D), in voxels of its grid, to another grid; 0 outside."""
    matrix = np.linalg.inv(other.affine)[:3, :3] @ grid.affine[:3, :3]
    vectors = turned(matrix, flow.cpu().float())
    parts = [read(vectors, index_flow(other, grid, part), "zeros") for part in other.slabs()]
    return torch.cat(parts, 2)


def as_published(flow: Tensor) -> Tensor:
    """The flow with which the published scripts warp: p + u -> (p + u) S/(S-1) - 1/2.

    flow: u, (1, 3, H, W, D) in voxels. S is the volume's side along the axis. A zero flow shifts
    the image by up to half a voxel: a defect, reproduced to score published checkpoints as
    published.
    """
    moved = []
    for axis, (at, n) in enumerate(zip(places(flow), flow.shape[2:], strict=True)):
        line = torch.arange(n).to(flow).reshape([-1, *[1] * (2 - axis)])
        moved.append(at * (n / (n - 1)) - 0.5 - line)
    return torch.stack(moved)[None]


def sampled_at(flow: Tensor, section: EvaluateSection) -> Tensor:
    """The flow that warps images and labels, according to `evaluate.warp`."""
    return as_published(flow) if section.warp == "published" else flow


def moved_image(image: NDArray, flow: Tensor, section: EvaluateSection) -> NDArray[np.float32]:
    """An image (H, W, D) warped by a flow (1, 3, H, W, D), trilinear, 0 outside."""
    flow = sampled_at(flow.cpu().float(), section)
    return warp(torch.from_numpy(image)[None, None], flow)[0, 0].numpy()


def moved_labels(labels: NDArray, flow: Tensor, section: EvaluateSection) -> NDArray:
    """A label map (H, W, D) warped by a flow (1, 3, H, W, D), with `evaluate.interpolation`.

    "nearest", or "trilinear": the label whose indicator, interpolated linearly, is largest.
    """
    flow = sampled_at(flow.cpu().double(), section)
    if section.interpolation == "trilinear":
        return sample_labels(labels, torch.stack(places(flow), -1).numpy())
    wide = torch.from_numpy(labels.astype(np.float64))[None, None]
    return read_nearest(wide, flow)[0, 0].numpy().astype(labels.dtype)
