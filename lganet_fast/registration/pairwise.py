"""Register a pair: two volumes in, a Registration out."""

from __future__ import annotations

import importlib
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch

from ..errors import InputWarning
from ..ops import OPERATIONS, choose_backend
from ..report.contents import Backend, Report
from ..runtime.json_files import named_only
from ..runtime.machine import choose_device, peak_memory_mb, set_threads, versions
from ..transforms.field import DisplacementField
from ..volumes.grid import Volume
from ..volumes.nifti import Source
from ..volumes.points import PointSource
from .results import paths_of, staging, write_page, write_report, writers
from .settings import (
    DEFAULTS,
    RUN,
    PathLike,
    Run,
    Settings,
    Sources,
    check_channels,
    check_points,
    check_settings,
)
from .stages import (
    Found,
    Given,
    Initial,
    Opened,
    Quality,
    align,
    find,
    measure,
    notes_of,
    read,
    score,
    transform,
)
from .verdict import Verdict

log = logging.getLogger(__name__)

BESIDE = {"cpu": 1, "cuda": 4}  # threads that score and write in the background


class RegistrationWarning(InputWarning):
    """Something about the input or the result that the user should check."""


class VerdictWarning(RegistrationWarning):
    """A reason why a result is doubtful or bad."""


@dataclass(frozen=True, eq=False)
class Registration:
    """A registered pair.

    warped: the moving image on the fixed grid. transform: fixed points to moving points, a field on
    the fixed grid. inverse: moving points to fixed points, on the moving grid. warped_labels: the
    moving labels on the fixed grid (nearest neighbour), or None. details: the report, with typed
    fields. further: the moving images of further channels on the fixed grid.
    """

    warped: Volume
    transform: DisplacementField
    inverse: DisplacementField
    warped_labels: Volume | None
    details: Report
    further: tuple[Volume, ...] = ()

    @cached_property
    def report(self) -> dict[str, Any]:
        """The details as the contents of report.json."""
        return self.details.as_dict()

    @property
    def verdict(self) -> Verdict:
        """Whether the result can be trusted, "good", "doubtful" or "bad", and why not."""
        return Verdict(self.details.verdict, tuple(self.details.reasons))


class Clock:
    """Seconds per stage, in running order."""

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
    fixed: Source | list[Source],
    moving: Source | list[Source],
    *,
    out: PathLike | None = RUN.out,
    fixed_labels: Source | None = None,
    moving_labels: Source | None = None,
    fixed_mask: Source | None = None,
    moving_mask: Source | None = None,
    fixed_points: PointSource | None = None,
    moving_points: PointSource | None = None,
    points_weight: float | None = None,
    guide_labels: float = DEFAULTS.guide_labels,
    channel_weights: Sequence[float] | None = None,
    no_folds: bool = DEFAULTS.no_folds,
    preset: str = DEFAULTS.preset,
    similarity: str = DEFAULTS.similarity,
    iterations: Sequence[int] | None = None,
    smoothness: float | None = None,
    initial: PathLike = DEFAULTS.initial,
    affine: bool = False,
    checkpoint: PathLike | None = DEFAULTS.checkpoint,
    device: str = RUN.device,
    threads: int | None = RUN.threads,
    precision: str = DEFAULTS.precision,
    qc: bool = RUN.qc,
    overwrite: bool = RUN.overwrite,
    share: bool = RUN.share,
    quiet: bool = RUN.quiet,
) -> Registration:
    """Find the position in `moving` of every voxel of `fixed`, by instance optimisation.

    fixed, moving, fixed_labels, moving_labels, fixed_mask, moving_mask: a path, a nibabel image,
        or a pair (array (X, Y, Z), affine (4, 4) from voxel index to RAS+ mm). Labels and masks
        are on their image's grid. Labels are warped and scored.
        A mask is non-zero where its image's voxels count, in the linear stage and in the
        similarity: a place counts where both masks are non-zero.
    fixed, moving may be lists, of one image a channel, on grids of their own; labels, masks and
        points go with the first. channel_weights: of the channels' similarities, in proportion;
        None for equal ones.
    fixed_points, moving_points: (N, 3) in RAS+ mm, or a CSV file with a header x,y,z in LPS mm, as
        in ANTs; matching by row, in the fixed and in the moving image. The search pulls them
        together. points_weight: of their mean squared distance in mm^2; None for 0.02.
    guide_labels: weight by which the labels steer the search; True is 1, 0 leaves them out, so that
        they are evidence of the result.
    out: a folder to write warped.nii.gz, warp.nii.gz, inverse_warp.nii.gz, warped_labels.nii.gz
        (with moving_labels), warped_2.nii.gz and so on (of further channels), report.json and, with
        `qc`, qc.html into: all of them or none. Files of an earlier run are replaced; files that
        this run does not write are removed only with `overwrite`.
    share: write names instead of paths in the report and in qc.html.
    preset: "fast" (no full resolution), "default", or "best" (a second search from the result of
        the first). Other arguments override it.
    similarity: "lncc" (local cross-correlation, 3^3 windows), "mse" (one modality, one scale),
        "mind" (MIND-SSC, across modalities) or "mi" (mutual information, across modalities).
    iterations: maximum per level, coarse to fine, each level twice as fine as the one before, the
        last at full resolution; 0 skips a level. None for the preset's, by default
        (30, 15, 15, 10, 5); given iterations are those of a single search.
    smoothness: weight of the squared gradient of the displacement; None for the similarity's
        default.
    initial: the linear transform before the search. "identity" uses the headers alone; "center"
        aligns the centres of what the images show; "moments" aligns their principal axes too;
        "rigid", "similarity" and "affine" search all rotations and optimise; or a file with a
        linear transform: ITK (.mat, .tfm, .txt, .h5), FSL (.mat), FreeSurfer (.lta), or 4 x 4
        numbers, from fixed to moving points in RAS+ mm. affine: short for initial="affine".
    no_folds: smooth the field where it may fold, also between voxels, until it does not.
    checkpoint: weights of a network of models.names(), published or ours (.safetensors). It
        registers first; iterations None is then (0, 0, 0, 10, 10), or (0, 0, 10, 0) with the
        preset "fast", in a single search, and (0,) uses the network alone.
    device: "auto", "cpu", "cuda" or "cuda:N". threads: CPU threads, None for all.
        precision: "float32" or "float64". quiet: no progress bar.
    If the search ends with a lower similarity than at its start, the start (the identity, the
    initial transform or the network's flow) is the result.
    Raises InputError with a one-line message. Warns with RegistrationWarning, also for every
    reason for a verdict other than "good".
    """
    sources = Sources(
        fixed,
        moving,
        fixed_labels,
        moving_labels,
        fixed_mask,
        moving_mask,
        fixed_points,
        moving_points,
    )
    settings = check_settings(
        similarity,
        iterations,
        smoothness,
        initial,
        affine,
        precision,
        checkpoint,
        preset,
        check_points(sources, points_weight),
        guide_labels,
        check_channels(sources, channel_weights),
        no_folds,
    )
    run = Run(out, device, threads, qc, overwrite, share, quiet)
    return register_sources(sources, settings, run)


def register_sources(
    sources: Sources, settings: Settings, run: Run = RUN, network: Opened | None = None
) -> Registration:
    """Register like `register`, from checked arguments, with the same errors and warnings.

    network: of settings.checkpoint, if it is already open and further pairs will use it.
    """
    place, threads = choose_device(run.device), set_threads(run.threads)
    clock = Clock()
    with (
        staging(run, sources, settings) as folder,
        ThreadPoolExecutor(BESIDE.get(place.type, 1)) as beside,  # its work releases the GIL
    ):
        beside.submit(load_ahead, place, run.qc and folder is not None)
        with clock.stage("read"):
            given = read(sources, settings, network)
        with clock.stage("initial"):
            initial = align(given.pair, settings, place)
        with clock.stage("optimise"):
            found = find(given, initial, settings, place, run.quiet)
        with clock.stage("transform"):
            moved = transform(given.pair, initial, found, settings)
            scores = beside.submit(score, given.pair, moved, settings)
            saves = [] if folder is None else writers(moved, folder)
            written = [beside.submit(save) for save in saves]
        with clock.stage("measure"):
            quality = measure(given, initial, found, moved, settings, scores.result)
        report = report_of(given, initial, found, quality, settings, backend(place, threads))
        report = named_only(report, paths_of(sources, settings) if run.share else [])
        if folder is not None:
            with clock.stage("write"):
                if run.qc:
                    write_page(report, given.pair, moved, quality, folder)
                for save in written:
                    save.result()
        report = replace(report, seconds=clock.report(), peak_memory_mb=peak_memory_mb(place))
        if folder is not None:
            write_report(report, folder)
    warn(notes_of(given, initial, found, quality), quality.verdict)
    after = moved.after
    fields = moved.transform, moved.inverse
    return Registration(after.image, *fields, after.labels, report, after.further)


def report_of(
    given: Given,
    initial: Initial,
    found: Found,
    quality: Quality,
    settings: Settings,
    ran_on: Backend,
) -> Report:
    """Make the report of a registration before its files are written."""
    return Report(
        inputs=given.inputs,
        settings=asdict(settings),
        affine_matrix_ras_mm=initial.matrix.tolist(),
        versions=versions(),
        backend=ran_on,
        network=given.card,
        similarity=found.change.report(),
        folds=quality.folds,
        jacobian=quality.jacobian,
        inverse_consistency_mm=quality.inverse_consistency_mm,
        labels=quality.labels,
        points=quality.points,
        verdict=quality.verdict.level,
        reasons=list(quality.verdict.reasons),
        warnings=notes_of(given, initial, found, quality),
        seconds={},
        peak_memory_mb=None,
    )


def warn(notes: Sequence[str], verdict: Verdict) -> None:
    """Issue the warnings and the verdict's reasons to the caller of `register`."""
    for message in notes:
        warnings.warn(message, RegistrationWarning, stacklevel=4)
    for reason in verdict.reasons:
        warnings.warn(reason, VerdictWarning, stacklevel=4)


def backend(place: torch.device, threads: int) -> Backend:
    """The device, the threads and each operation's backend."""
    operations = {op: choose_backend(op, place.type).backend for op in OPERATIONS}
    return Backend(str(place), threads, operations)


def load_ahead(place: torch.device, page: bool) -> None:
    """Open the device, and load the page's modules, while files are read and the search runs."""
    torch.zeros((), device=place)
    if page:
        importlib.import_module("..report.page", __package__)
