"""The stages of a registration, one function each: read, align, search, transform, measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..models.checkpoint import Checkpoint
from ..models.inference import open_checkpoint
from ..report.contents import Input, InverseConsistency, Jacobian, LabelScores
from ..runtime.files import sha256
from ..runtime.machine import guard_memory
from ..runtime.progress import Progress
from ..transforms.field import DisplacementField
from ..volumes import nifti
from ..volumes.grid import Array, Volume
from . import measures
from .affine import align_affine
from .initial_flow import card_warnings, predict
from .measures import SimilarityChange, similarity_change
from .objective import ImageTerm, SmoothnessTerm, Term
from .optimiser import Step, minimise
from .pair import Pair, overlap, pair_warnings, read_pair
from .settings import TUNING, Settings, Sources
from .turns import best_turn
from .verdict import Measured, Verdict, judge
from .workspace import MARGIN, Workspace, prepare, transforms


@dataclass(frozen=True, eq=False)
class Given:
    """What was read.

    inputs: what the report says of the sources. network: that registers first, or None; card: what
    the report says of it; others: whether other pairs follow with it. notes: what their user should
    look at.
    """

    pair: Pair
    inputs: dict[str, Input]
    network: Checkpoint | None
    card: dict[str, Any] | None
    others: bool
    notes: list[str]


Opened: TypeAlias = tuple[Checkpoint | None, dict[str, Any] | None]


def read(sources: Sources, settings: Settings, network: Opened | None = None) -> Given:
    """Read the sources, and the network where it is not `opened` already.

    Raises InputError with one line on what is wrong.
    """
    with nifti.collected() as notes:
        pair = read_pair(sources)
        given = sources.given().items()
        inputs = {role: Input(**nifti.describe(source, role)) for role, source in given}
        found = opened(settings.checkpoint) if network is None else network
    return Given(pair, inputs, *found, network is not None, notes)


def opened(weights: str | None) -> Opened:
    """The network of a file, if any, and what the report says of it."""
    if weights is None:
        return None, None
    network = open_checkpoint(weights)
    return network, asdict(network.card) | network.model.config | {"sha256": sha256(weights)}


@dataclass(frozen=True, eq=False)
class Initial:
    """The linear transform before the search.

    matrix: (4, 4), fixed to moving points in RAS+ mm. overlap: part of the fixed grid, 0 to 1, that
    it sends into the moving one.
    """

    matrix: Array
    overlap: float
    notes: list[str]


def align(pair: Pair, settings: Settings) -> Initial:
    """The linear transform that the settings ask for.

    Raises InputError where it cannot be found, or leaves no overlap.
    """
    matrix = align_affine(pair.fixed, pair.moving, settings.seed) if settings.affine else np.eye(4)
    part = overlap(pair.fixed.grid, pair.moving.grid, matrix)
    return Initial(matrix, part, pair_warnings(pair, part))


@dataclass(frozen=True, eq=False)
class Found:
    """What the search found.

    start: the pair on its working grid; work: the same, or after a network. velocity: as `minimise`
    returns it for `work`; 0 where nothing is better than what the search began with.
    """

    start: Workspace
    work: Workspace
    velocity: Tensor
    change: SimilarityChange
    notes: list[str]


def find(
    given: Given, initial: Initial, settings: Settings, place: torch.device, quiet: bool
) -> Found:
    """Bring the pair onto its working grid, let the network register it, if any, and search."""
    work = start = prepare(given.pair, initial.matrix, place, settings.dtype)
    notes = []
    if given.network is not None:
        notes = card_warnings(given.network.card, start.grid)
        work = start.after(predict(given.network, start, keep=given.others))
    velocity, change = search(start, work, settings, quiet)
    return Found(start, work, velocity, change, notes)


def objective(work: Workspace, settings: Settings) -> list[Term]:
    """What the search minimises: the sum of these."""
    return [
        ImageTerm(work.fixed, work.moving, work.weights, settings.similarity, work.noise),
        SmoothnessTerm(settings.smoothness),
    ]


def search(
    start: Workspace, work: Workspace, settings: Settings, quiet: bool
) -> tuple[Tensor, SimilarityChange]:
    """Optimise the velocity field, showing progress unless quiet; and how the similarity changed.

    start, work and the velocity: as in `Found`.
    """
    per_voxel = TUNING[settings.similarity].bytes_per_voxel * settings.dtype.itemsize // 4
    guard = guard_memory(work.grid.shape, work.fixed.device, per_voxel)
    with guard, progress_bar(quiet or not any(settings.iterations)) as on_step:
        velocity = minimise(
            objective(work, settings),
            work.fixed,
            settings.iterations,
            margin=MARGIN,
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


@dataclass(frozen=True, eq=False)
class Carried:
    """The moving image and its labels, if any, on the fixed grid."""

    image: Volume
    labels: Volume | None


def carry(pair: Pair, transform: DisplacementField) -> Carried:
    """The moving image, linear, and labels, nearest, through a transform."""
    labels = pair.moving_labels
    moved = None if labels is None else transform.apply(labels, interpolation="nearest")
    return Carried(transform.apply(pair.moving), moved)


@dataclass(frozen=True, eq=False)
class Moved:
    """The transforms, and what they carry onto the fixed grid.

    before: by the initial transform alone; after: by the whole one.
    """

    transform: DisplacementField
    inverse: DisplacementField
    before: Carried
    after: Carried


def transform(pair: Pair, initial: Initial, found: Found) -> Moved:
    """Turn the velocity into transforms, and move the image and its labels."""
    forward, inverse = transforms(found.velocity, found.work, pair)
    place = found.velocity.device
    linear = DisplacementField.from_affine(initial.matrix, pair.fixed.grid, place)
    return Moved(forward, inverse, carry(pair, linear), carry(pair, forward))


def score(pair: Pair, moved: Moved) -> LabelScores | None:
    """What the labels say of the result; None where either image came without."""
    before, after = moved.before.labels, moved.after.labels
    return measures.label_scores(pair.fixed_labels, pair.moving_labels, before, after)


@dataclass(frozen=True, eq=False)
class Quality:
    """What was measured of a result. det: its Jacobian determinant (X, Y, Z), on the fixed grid."""

    det: Tensor
    jacobian: Jacobian
    inverse_consistency_mm: InverseConsistency
    labels: LabelScores | None
    verdict: Verdict
    notes: list[str]


def measure(
    given: Given,
    initial: Initial,
    found: Found,
    moved: Moved,
    settings: Settings,
    scores: Callable[[], LabelScores | None],
) -> Quality:
    """Measure the result and judge it. scores: what waits for `score`."""
    pair, det = given.pair, moved.transform.determinant()
    jacobian = measures.jacobian_summary(det)
    residual = measures.inverse_residual(pair, moved.transform, moved.inverse)
    labels = scores()
    verdict = judge(
        Measured(
            similarity=found.change,
            affine=initial.matrix,
            turn=best_turn(found.start),
            overlap=initial.overlap,
            reach=measures.reach_of(found.velocity, found.work),
            folded_percent=jacobian.folded_percent,
            smoothness=settings.smoothness,
            residual_mm=residual,
            spacing=pair.moving.grid.spacing,
            labels=labels,
        )
    )
    return Quality(det, jacobian, residual, labels, verdict, measures.label_warnings(labels))


def notes_of(*stages: Given | Initial | Found | Quality) -> list[str]:
    """What the user should look at, of every stage."""
    return [note for stage in stages for note in stage.notes]
