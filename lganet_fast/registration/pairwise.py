"""Register a pair: two volumes in, a Registration out."""

from __future__ import annotations

import importlib
import logging
import os
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputWarning
from ..models.checkpoint import Checkpoint
from ..models.inference import open_checkpoint
from ..ops import OPERATIONS, choose_backend
from ..runtime.device import fetched
from ..runtime.files import sha256, staged_folder
from ..runtime.json_files import named_only, write_report_json
from ..runtime.machine import choose_device, guard_memory, peak_memory_mb, set_threads, versions
from ..runtime.progress import Progress
from ..transforms.field import DisplacementField
from ..volumes import nifti
from ..volumes.grid import Volume
from . import measures
from .affine import align_affine
from .initial_flow import card_warnings, predict
from .measures import SimilarityChange, similarity_change
from .optimiser import Step, optimise
from .pair import Pair, overlap, pair_warnings, read_pair
from .settings import OUTPUTS, Settings, check_settings
from .turns import best_turn
from .verdict import Measured, Verdict, judge
from .workspace import MARGIN, Workspace, prepare, transforms

log = logging.getLogger(__name__)

BESIDE = {"cpu": 1, "cuda": 4}  # threads that score and write beside the rest
BYTES_PER_VOXEL = {"lncc": 220, "mse": 220, "mind": 600}  # measured, optimising in float32


def outputs(labels: bool, qc: bool) -> list[str]:
    """The files that a run writes, with moving labels or not, with a page or not."""
    lacking = {"warped_labels.nii.gz": not labels, "qc.html": not qc}
    return [name for name in OUTPUTS if not lacking.get(name)]


class RegistrationWarning(InputWarning):
    """Something about the input or the result that its user should look at."""


class VerdictWarning(RegistrationWarning):
    """A reason why a result is doubtful or bad."""


@dataclass(frozen=True, eq=False)
class Registration:
    """A registered pair.

    warped: the moving image on the fixed grid. transform: fixed points to moving points, a field on
    the fixed grid. inverse: moving points to fixed points, on the moving grid. warped_labels: the
    moving labels on the fixed grid (nearest neighbour), or None. report: what report.json holds.
    verdict: whether the result can be trusted, "good", "doubtful" or "bad", and why not.
    """

    warped: Volume
    transform: DisplacementField
    inverse: DisplacementField
    warped_labels: Volume | None
    report: dict[str, Any]
    verdict: Verdict


class Clock:
    """Seconds per stage, in the order in which they ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as `name`."""
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started
        log.debug("%s: %.2f s", name, self.seconds[name])

    def report(self) -> dict[str, float]:
        """Every stage and the total, to the millisecond."""
        total = sum(self.seconds.values())
        return {name: round(s, 3) for name, s in {**self.seconds, "total": total}.items()}


def register(
    fixed: nifti.Source,
    moving: nifti.Source,
    *,
    out: str | os.PathLike[str] | None = None,
    fixed_labels: nifti.Source | None = None,
    moving_labels: nifti.Source | None = None,
    fixed_mask: nifti.Source | None = None,
    similarity: str = "lncc",
    iterations: Sequence[int] | None = None,
    smoothness: float | None = None,
    affine: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    precision: str = "float32",
    qc: bool = True,
    overwrite: bool = False,
    share: bool = False,
    quiet: bool = True,
) -> Registration:
    """Find, for every voxel of `fixed`, where it lies in `moving`, by instance optimisation.

    fixed, moving, fixed_labels, moving_labels, fixed_mask: a path, a nibabel image, or a pair
        (array (X, Y, Z), affine (4, 4) from voxel index to RAS+ mm). Labels lie on their image's
        grid; they are carried along and scored, and do not steer. fixed_mask: non-zero where the
        similarity counts.
    out: a folder to write warped.nii.gz, warp.nii.gz, inverse_warp.nii.gz, warped_labels.nii.gz
        (with moving_labels), report.json and, with `qc`, qc.html into: all of them or none. Those
        of an earlier run are replaced; where some would go without any in their place, they are
        only with `overwrite`.
    share: have names in the place of paths in the report and in qc.html.
    similarity: "lncc" (local cross-correlation, 5^3 windows), "mse" (one modality, one scale) or
        "mind" (MIND-SSC, across modalities).
    iterations: most iterations per level, coarse to fine, each level twice as fine as the one
        before, the last at full resolution; 0 leaves a level out. None for (40, 40, 10, 10).
    smoothness: weight of the squared gradient of the displacement; None for the similarity's own.
    affine: align by an affine transform first (needs SimpleITK).
    checkpoint: an LGANet++ checkpoint, of the published format or our own (.safetensors), whose
        network registers first; then iterations are (0, 0, 10, 10) where None, and (0,) leaves it
        at the network.
    device: "auto", "cpu", "cuda" or "cuda:N". threads: CPU threads, all where None. seed: of the
        affine stage's random samples. precision: "float32" or "float64". quiet: no progress bar.
    Where the search ends with a lower similarity than it began with, its start (the identity, the
    affine map or the network's) is the result.
    Raises InputError with one line on what is wrong. Warns with RegistrationWarning, also of every
    reason for a verdict other than "good".
    """
    weights = None if checkpoint is None else os.fspath(checkpoint)
    settings = check_settings(similarity, iterations, smoothness, affine, seed, precision, weights)
    place, used_threads = choose_device(device), set_threads(threads)
    sources = {
        "fixed": fixed,
        "moving": moving,
        "fixed_labels": fixed_labels,
        "moving_labels": moving_labels,
        "fixed_mask": fixed_mask,
    }
    clock = Clock()
    expected = None if overwrite else outputs(moving_labels is not None, qc)
    with (
        staging(out, expected, [*sources.values(), weights]) as folder,
        ThreadPoolExecutor(BESIDE.get(place.type, 1)) as beside,  # what it does leaves Python free
    ):
        beside.submit(load_ahead, place, qc and folder is not None)
        with clock.stage("read"), nifti.collected() as notes:
            pair = read_pair(sources)
            inputs = {name: nifti.describe(s, name) for name, s in sources.items() if s is not None}
            network, about = opened(weights)
        with clock.stage("affine"):
            matrix = align_affine(pair.fixed, pair.moving, seed) if affine else np.eye(4)
        part = overlap(pair.fixed.grid, pair.moving.grid, matrix)
        notes += pair_warnings(pair, part)
        with clock.stage("optimise"):
            work = start = prepare(pair, matrix, place, settings.dtype)
            if network is not None:
                notes += card_warnings(network.card, start.grid)
                work = start.after(predict(network, start))
            velocity, change = search(start, work, settings, quiet)
        with clock.stage("transform"):
            transform, inverse = transforms(velocity, work, pair)
            affinely = DisplacementField.from_affine(matrix, pair.fixed.grid, place)
            before, after = (carry(pair, t) for t in (affinely, transform))
            scores = beside.submit(
                measures.label_scores, pair.fixed_labels, pair.moving_labels, before[1], after[1]
            )
            saves = [] if folder is None else writes(*after, transform, inverse, Path(folder))
            written = [beside.submit(save) for save in saves]
        with clock.stage("measure"):
            det = transform.determinant()
            jacobian = measures.jacobian_summary(det)
            residual = measures.inverse_residual(pair, transform, inverse)
            per_label = scores.result()
            notes += measures.label_warnings(per_label)
            verdict = judge(
                Measured(
                    similarity=change,
                    affine=matrix,
                    turn=best_turn(start),
                    overlap=part,
                    reach=measures.reach_of(velocity, work),
                    folded_percent=jacobian["folded_percent"],
                    smoothness=settings.smoothness,
                    residual_mm=residual,
                    spacing=pair.moving.grid.spacing,
                    labels=per_label,
                )
            )
        report: dict[str, Any] = named_only(
            {
                "inputs": inputs,
                "settings": asdict(settings),
                "affine_matrix_ras_mm": matrix.tolist(),
                "versions": versions(),
                "backend": backends(place, used_threads),
                "network": about,
                "similarity": change.report(),
                "jacobian": jacobian,
                "inverse_consistency_mm": residual,
                "labels": per_label,
                "verdict": verdict.level,
                "reasons": list(verdict.reasons),
                "warnings": notes,
            },
            [*sources.values(), weights] if share else [],
        )
        result = Registration(after[0], transform, inverse, after[1], report, verdict)
        if folder is not None:
            with clock.stage("write"):
                if qc:
                    maps = pair.fixed_labels, before[1], after[1]
                    images = before[0].data, after[0].data
                    write_page(report, pair.fixed, images, transform, det, maps, Path(folder))
                for save in written:
                    save.result()
        report |= {"seconds": clock.report(), "peak_memory_mb": peak_memory_mb(place)}
        if folder is not None:
            write_report_json(Path(folder) / "report.json", report)
    warn(notes, verdict)
    return result


def warn(notes: Sequence[str], verdict: Verdict) -> None:
    """Warn the caller of `register` of what its user should look at."""
    for message in notes:
        warnings.warn(message, RegistrationWarning, stacklevel=3)
    for reason in verdict.reasons:
        warnings.warn(reason, VerdictWarning, stacklevel=3)


def staging(
    out: str | os.PathLike[str] | None, expected: Collection[str] | None, inputs: Sequence[Any]
) -> AbstractContextManager[Any]:
    """The folder in which the results are made; none where none are to be written.

    expected, inputs: as `staged_folder` takes them; of the inputs, those that are paths.
    """
    if out is None:
        return nullcontext()
    paths = [s for s in inputs if isinstance(s, str | os.PathLike)]
    return staged_folder(out, OUTPUTS, expected=expected, inputs=paths)


def opened(weights: str | None) -> tuple[Checkpoint | None, dict[str, Any] | None]:
    """The network of a file, if any, and what the report says of it."""
    if weights is None:
        return None, None
    network = open_checkpoint(weights)
    return network, asdict(network.card) | network.model.config | {"sha256": sha256(weights)}


def backends(place: torch.device, threads: int) -> dict[str, Any]:
    """What ran where, for the report."""
    operations = {op: choose_backend(op, place.type).backend for op in OPERATIONS}
    return {"device": str(place), "threads": threads, "operations": operations}


def search(
    start: Workspace, work: Workspace, settings: Settings, quiet: bool
) -> tuple[Tensor, SimilarityChange]:
    """Optimise the velocity field, showing progress unless quiet; and how the similarity changed.

    start: the pair; work: the same, or after a network. The velocity is 0 where the search has
    found nothing better than what it began with.
    """
    per_voxel = BYTES_PER_VOXEL[settings.similarity] * settings.dtype.itemsize // 4
    guard = guard_memory(work.grid.shape, work.fixed.device, per_voxel)
    with guard, progress_bar(quiet or not any(settings.iterations)) as on_step:
        velocity = optimise(
            work.fixed,
            work.moving,
            work.weights,
            similarity=settings.similarity,
            iterations=settings.iterations,
            smoothness=settings.smoothness,
            margin=MARGIN,
            noise=work.noise,
            on_step=on_step,
        )
    change = similarity_change(velocity, start, work, settings.similarity)
    return (torch.zeros_like(velocity) if change.dropped else velocity), change


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Callable[[Step], None]]:
    """A bar with level, loss and remaining time, counted in voxels visited."""
    with Progress(1, "resolution", quiet, counted=False) as bar:

        def on_step(step: Step) -> None:
            name = f"resolution 1/{step.level.factor}"
            bar.at(step.done, f"loss {step.loss:.4f}", name, step.total)

        yield on_step


def carry(pair: Pair, transform: DisplacementField) -> tuple[Volume, Volume | None]:
    """The moving image and labels on the fixed grid."""
    labels = pair.moving_labels
    return (
        transform.apply(pair.moving),
        labels and transform.apply(labels, interpolation="nearest"),
    )


def load_ahead(place: torch.device, page: bool) -> None:
    """Open the device, and load what draws the page, while files are read and the search runs."""
    torch.zeros((), device=place)
    if page:
        importlib.import_module("..report.page", __package__)


def writes(
    warped: Volume,
    labels: Volume | None,
    transform: DisplacementField,
    inverse: DisplacementField,
    folder: Path,
) -> list[Callable[[], None]]:
    """What writes each volume and field of a registration into a folder."""
    volumes = {"warped.nii.gz": warped}
    if labels is not None:
        volumes["warped_labels.nii.gz"] = labels
    fields = {"warp.nii.gz": transform, "inverse_warp.nii.gz": inverse}
    return [
        *(partial(field.save, folder / name) for name, field in fields.items()),
        *(partial(nifti.save_volume, folder / name, v.data, v.grid) for name, v in volumes.items()),
    ]


def write_page(
    report: dict[str, Any],
    fixed: Volume,
    images: tuple[NDArray, NDArray],
    transform: DisplacementField,
    det: Tensor,
    labels: tuple[Volume | None, ...],
    folder: Path,
) -> None:
    """Write the quality page; the arguments as `qc_page` takes them."""
    from ..report.page import qc_page  # Matplotlib is slow to load: see `load_ahead`

    maps = (None if volume is None else volume.data for volume in labels)
    page = qc_page(report, fixed, *images, transform, fetched(det), *maps)
    (folder / "qc.html").write_text(page, encoding="utf-8", errors="backslashreplace")
