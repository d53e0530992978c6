"""Register one pair by all processes that torchrun started."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..registration.optimiser import STEPS
from ..registration.pair import overlap
from ..registration.separable import growth
from ..registration.settings import INITIALS, REPORT, TUNING, Run, Settings, Sources
from ..registration.stages import progress_bar
from ..registration.workspace import Workspace, maps_onto
from ..runtime.json_files import write_report_json
from ..runtime.machine import guard_memory, peak_memory_mb, versions
from ..runtime.ranks import join
from ..transforms.codecs import FLIP, VECTOR
from ..transforms.field import DisplacementField
from ..transforms.jacobian import determinants
from ..volumes import nifti
from ..volumes.grid import Grid, slab_size
from ..volumes.resample import channels_last, turned
from .group import WAIT, Group
from .images import Stored, own_part, prepare
from .operations import Along, Stretch, integrate, with_halo, within
from .outputs import WARP, WARPED, Planes, common_folder
from .search import MEASURES, Slabs, search, similarities, velocity_size

FIXED = 2  # of the sources: the others are refused


@dataclass(frozen=True)
class Outcome:
    """The result of a sharded registration, the same in every process.

    before, after: the similarity over the fixed foreground. dropped: the search found nothing
    better, so that nothing is moved. folded_percent: of the voxels. peak_mb: of every process.
    notes: warnings for the user. first: whether this process is to print.
    """

    similarity: str
    before: float
    after: float
    dropped: bool
    folded_percent: float
    seconds: float
    peak_mb: list[float | None]
    notes: list[str]
    first: bool


def check(sources: Sources, settings: Settings, run: Run) -> None:
    """Raise InputError for what a sharded registration lacks."""
    given = [f.name for f in fields(sources) if getattr(sources, f.name) is not None]
    extra = {
        **dict.fromkeys(given[FIXED:], True),
        "several channels": isinstance(sources.fixed, list) or isinstance(sources.moving, list),
        f"initial {settings.initial}": settings.initial != INITIALS[0],
        f"similarity {settings.similarity}": settings.similarity not in MEASURES,
        "checkpoint": settings.checkpoint is not None,
        "guide_labels": settings.guide_labels > 0,
        "no_folds": settings.no_folds,
        f"preset {settings.preset}": bool(settings.again),
    }
    found = [name for name, there in extra.items() if there]
    if found:
        raise InputError(
            "--shard registers two 3D images that are aligned by their headers, by "
            f"{' or '.join(MEASURES)}, in a single search; leave out {', '.join(found)}"
        )
    if run.out is None:
        raise InputError("--shard needs --out: no process holds the whole result")


def register_sharded(sources: Sources, settings: Settings, run: Run) -> Outcome:
    """Register a pair, of which every process reads, computes and writes its planes.

    Writes warped.nii, warp.nii and report.json into run.out: all of them or none.
    Raises InputError, in every process, if any of them fails.
    """
    check(sources, settings, run)
    started = time.perf_counter()
    with join(run.device, run.threads or 0, WAIT) as ranks:
        group = Group.of(ranks)
        inputs = [x for x in (sources.fixed, sources.moving) if isinstance(x, str | os.PathLike)]
        assert run.out is not None
        with (
            nifti.collected() as notes,
            common_folder(group, run.out, run.overwrite, inputs) as folder,
        ):
            given = sources.fixed, sources.moving
            fixed, moving = group.stage(lambda: opened(*given))
            grid, slabs = prepare(group, fixed, moving, settings.dtype)
            velocity = found(slabs, settings, run.quiet or group.rank > 0)
            outcome = finish(slabs, grid, fixed, moving, velocity, settings, folder, started, notes)
            if not group.rank:
                contents = report(sources, fixed, moving, settings, outcome, run)
                write_report_json(folder / REPORT, contents)
        return outcome


def opened(fixed: Any, moving: Any) -> tuple[Stored, Stored]:
    """Open both images. Raises InputError if they do not overlap."""
    one, other = Stored.open(fixed, "fixed"), Stored.open(moving, "moving")
    if not overlap(one.grid, other.grid, np.eye(4)):
        raise InputError(
            "fixed and moving do not overlap in world space: "
            f"fixed is {nifti.describe_grid(one.grid)}, moving is {nifti.describe_grid(other.grid)}"
        )
    return one, other


def found(slabs: Slabs, settings: Settings, quiet: bool) -> Tensor:
    """The planes of the velocity."""
    shape, device = slabs.channel.fixed.shape[2:], slabs.group.device
    beside = 1 if device.type != "cpu" else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    size = (shape[0], shape[1], shape[2] * beside)
    need = TUNING[settings.similarity].bytes_per_voxel * settings.dtype.itemsize // 4
    with guard_memory(size, device, need), progress_bar(quiet) as on_step:
        return search(slabs, settings, on_step)


@torch.no_grad()
def finish(
    slabs: Slabs,
    grid: Grid,
    fixed: Stored,
    moving: Stored,
    velocity: Tensor,
    settings: Settings,
    folder: Path,
    started: float,
    notes: list[str],
) -> Outcome:
    """Measure the result, and write this process's planes of the warped image and the field."""
    group, coarse = slabs.group, velocity_size(grid.shape, settings)
    half = integrate(group, velocity, coarse[2], STEPS)
    flow = Stretch(group, coarse, grid.shape, half)(half)
    before, after = similarities(slabs, flow, settings.similarity)
    del flow
    rises = settings.similarity == "lncc"
    dropped = not (after >= before if rises else after <= before)  # also where it is NaN
    field = field_of(slabs, grid, fixed.grid, half * (not dropped), coarse)
    files = [
        Planes(group, folder / WARP, fixed.grid, 3, VECTOR),
        Planes(group, folder / WARPED, fixed.grid),
    ]
    vectors = channels_last(field.vectors())

    def write() -> None:
        for channel, sign in enumerate(FLIP):
            files[0].write(vectors[..., channel] * sign, channel)
        files[1].write(warped(field, moving))

    group.stage(write)
    return Outcome(
        settings.similarity,
        before,
        before if dropped else after,
        dropped,
        folded(group, field, fixed.grid),
        time.perf_counter() - started,
        group.objects(peak_memory_mb(group.device)),
        notes,
        group.ranks.first,
    )


def field_of(
    slabs: Slabs, grid: Grid, fixed: Grid, half: Tensor, coarse: tuple[int, ...]
) -> DisplacementField:
    """`registration.workspace.field_of`, on the planes of the fixed grid that the process owns.

    grid: the whole working grid. half: (1, 3, h, w, d), on the velocity's grid, of size `coarse`.
    """
    group = slabs.group
    matrix = grid.affine @ np.diag([*growth(coarse, grid.shape), 1])
    vectors = turned(matrix[:3, :3], half.float())
    maps = maps_onto(fixed, Workspace(grid, np.eye(4), (slabs.channel,)), coarse)
    return DisplacementField(Along(group, maps, vectors)(vectors), own_part(group, fixed))


def warped(field: DisplacementField, moving: Stored) -> Any:
    """The moving image on the field's grid (X, Y, z), from the box of its file around it."""
    index = moving.grid.to_index(field.grid.corners())
    shift = turned(np.linalg.inv(moving.grid.affine)[:3, :3], field.vectors())
    ends = [f(dim=(0, 2, 3, 4)).cpu().numpy() for f in (shift.amin, shift.amax)]
    box = moving.around(np.stack([index.min(0) + ends[0], index.max(0) + ends[1]]), 1)
    return field.apply(box).data


def folded(group: Group, field: DisplacementField, fixed: Grid) -> float:
    """Per cent of the fixed grid's voxels whose Jacobian determinant is not above 0."""
    size = fixed.shape[2]
    near = with_halo(group, field.vectors(), size, 1)
    count = 0
    wide = Grid((near.shape[2], near.shape[3], near.shape[4]), fixed.affine)
    for _, det in determinants(
        near[0].permute(1, 2, 3, 0), wide, "central", slab_size(near.device)
    ):
        count += int((~(within(group, det, size, 1) > 0)).sum())
    return 100 * group.sum(count) / fixed.size


def report(
    sources: Sources, fixed: Stored, moving: Stored, settings: Settings, outcome: Outcome, run: Run
) -> dict[str, Any]:
    """The contents of report.json."""

    def entry(source: Any, image: Stored) -> dict[str, Any]:
        path = os.fspath(source) if isinstance(source, str | os.PathLike) else None
        return {
            "path": os.path.basename(path) if path is not None and run.share else path,
            "shape": list(image.grid.shape),
            "spacing_mm": [round(float(s), 6) for s in image.grid.spacing],
            "orientation": nifti.orientation(image.grid),
        }

    return {
        "inputs": {
            "fixed": entry(sources.fixed, fixed),
            "moving": entry(sources.moving, moving),
        },
        "settings": asdict(settings),
        "versions": versions(),
        "similarity": {
            "name": outcome.similarity,
            "before": round(outcome.before, 6),
            "after": round(outcome.after, 6),
        },
        "folded_percent": outcome.folded_percent,
        "warnings": outcome.notes,
        "seconds": round(outcome.seconds, 3),
        "processes": len(outcome.peak_mb),
        "peak_memory_mb": outcome.peak_mb,
    }
