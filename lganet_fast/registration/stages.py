"""The stages of a registration, one function each: read, align, search, transform, measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..errors import InputError
from ..models.checkpoint import Checkpoint
from ..models.inference import open_checkpoint
from ..report.contents import Folds, Input, InverseConsistency, Jacobian, LabelScores, PointScores
from ..runtime.device import sent
from ..runtime.files import sha256
from ..runtime.machine import guard_memory
from ..runtime.progress import Progress
from ..transforms.field import DisplacementField
from ..transforms.folds import without_folds
from ..transforms.linear_files import read_linear
from ..volumes import nifti
from ..volumes.grid import Array, Volume
from ..volumes.points import describe_points
from . import linear, measures
from .channels import Channel
from .initial_flow import card_warnings, predict
from .measures import SimilarityChange, similarity_change
from .objective import ImageTerm, PointsTerm, SmoothnessTerm, Term
from .optimiser import Step, flow_of, minimise
from .pair import Pair, overlap, pair_warnings, read_pair
from .settings import INITIALS, TUNING, Settings, Sources
from .turns import best_turn
from .verdict import Measured, Verdict, judge
from .workspace import MARGIN, Workspace, prepare, transforms

BYTES_PER_CODE = 40  # memory per voxel of each image of coded labels, optimising in float32


@dataclass(frozen=True, eq=False)
class Given:
    """The inputs of a registration.

    inputs: the report's entries on the sources. network: registers first, or None; card: the
    report's entry on the network; others: whether further pairs will use it. notes: warnings for
    the user.
    """

    pair: Pair
    inputs: dict[str, Input]
    network: Checkpoint | None
    card: dict[str, Any] | None
    others: bool
    notes: list[str]


Opened: TypeAlias = tuple[Checkpoint | None, dict[str, Any] | None]


def read(sources: Sources, settings: Settings, network: Opened | None = None) -> Given:
    """Read the sources, and the network unless it is `opened` already.

    Raises InputError with a one-line message.
    """
    with nifti.collected() as notes:
        pair = read_pair(sources)
        inputs = inputs_of(sources)
        if settings.checkpoint is not None and pair.fixed.grid.flat is not None:
            raise InputError("a network registers 3D images; leave out the checkpoint")
        found = opened(settings.checkpoint) if network is None else network
    return Given(pair, inputs, *found, network is not None, notes)


def inputs_of(sources: Sources) -> dict[str, Input]:
    """The report's entries on the sources. Raises InputError if one cannot be read."""
    return {
        **{role: Input(**nifti.describe(x, role)) for role, x in sources.given().items()},
        **{role: Input(**describe_points(x, role)) for role, x in sources.points().items()},
    }


def opened(weights: str | None) -> Opened:
    """Open the network of a file, if any, and make the report's entry on it."""
    if weights is None:
        return None, None
    network = open_checkpoint(weights)
    return network, asdict(network.card) | network.model.config | {"sha256": sha256(weights)}


@dataclass(frozen=True, eq=False)
class Initial:
    """The linear transform before the search.

    matrix: (4, 4), fixed to moving points in RAS+ mm. overlap: fraction of the fixed grid, 0 to 1,
    that it maps into the moving grid. doubts: reasons against it, a line each.
    """

    matrix: Array
    overlap: float
    notes: list[str]
    doubts: tuple[str, ...]


def align(pair: Pair, settings: Settings, place: torch.device) -> Initial:
    """Find or read the initial linear transform.

    Raises InputError if its file cannot be read, or if there is no overlap.
    """
    fixed, moving, name = pair.fixed, pair.moving, settings.initial
    if fixed.grid.flat is not None and name != INITIALS[0]:
        raise InputError(
            f"initial {name} is for 3D images: 2D images must be aligned by their headers"
        )
    with nifti.collected() as notes:
        if name in INITIALS:
            found = linear.align(fixed, moving, name, masks=pair.masks, device=place)
        else:
            found = linear.LinearResult(read_linear(name, fixed.grid, moving.grid))
    part = overlap(fixed.grid, moving.grid, found.matrix)
    if part == 0 and name not in INITIALS:
        raise InputError(
            f"transform {name} maps no part of the fixed image into the moving one: is it for "
            "other images, or does it go from moving to fixed?"
        )
    return Initial(found.matrix, part, notes + pair_warnings(pair, part), found.doubts)


@dataclass(frozen=True, eq=False)
class Found:
    """The result of the search.

    start: the pair on its working grid; work: the same, or after a network or a first search.
    velocity: as `minimise` returns it for `work`; 0 if the search found nothing better than its
    start.
    """

    start: Workspace
    work: Workspace
    velocity: Tensor
    change: SimilarityChange
    notes: list[str]


def find(
    given: Given, initial: Initial, settings: Settings, place: torch.device, quiet: bool
) -> Found:
    """Resample the pair to its working grid, apply the network, if any, and search.

    The result of a second search, if any, is kept only if the similarity is higher.
    """
    work = start = prepare(
        given.pair,
        initial.matrix,
        place,
        settings.dtype,
        weights=settings.channel_weights,
        guide_labels=settings.guide_labels,
    )
    notes = []
    if given.network is not None:
        notes = card_warnings(given.network.card, start.grid)
        work = start.after(predict(given.network, start, keep=given.others))
    velocity, change = search(start, work, settings, quiet)
    if settings.again and not change.dropped:
        further = work.after(flow_of(velocity, work.grid.shape))
        once_more = replace(settings, iterations=settings.again)
        added, further_change = search(start, further, once_more, quiet)
        if not further_change.dropped:
            work, velocity = further, added
            change = replace(further_change, start=change.start)
    return Found(start, work, velocity, change, notes)


def objective(work: Workspace, settings: Settings) -> list[Term]:
    """The terms whose sum the search minimises."""
    terms: list[Term] = [
        *(image_term(channel, settings.similarity) for channel in work.channels),
        SmoothnessTerm(settings.smoothness),
    ]
    if work.labels is not None:
        terms.append(image_term(work.labels, "mse"))
    if work.points is not None:
        fixed, moving = (sent(points, work.fixed) for points in work.points)
        side = float(work.grid.spacing.mean())
        terms.append(PointsTerm(fixed, moving, work.grid.shape, side, settings.points_weight))
    return terms


def image_term(channel: Channel, similarity: str) -> ImageTerm:
    """The dissimilarity of a channel."""
    images = channel.fixed, channel.moving
    return ImageTerm(*images, channel.weights, similarity, channel.noise, channel.weight)


def search(
    start: Workspace, work: Workspace, settings: Settings, quiet: bool
) -> tuple[Tensor, SimilarityChange]:
    """Optimise the velocity field, showing progress unless quiet.

    Returns the velocity and the change of similarity. start, work, velocity: as in `Found`.
    """
    per_voxel = TUNING[settings.similarity].bytes_per_voxel * len(work.channels)
    if work.labels is not None:
        per_voxel += BYTES_PER_CODE * work.labels.fixed.shape[1]
    per_voxel = per_voxel * settings.dtype.itemsize // 4
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
    """The moving image, its labels, if any, and further channels, on the fixed grid."""

    image: Volume
    labels: Volume | None
    further: tuple[Volume, ...] = ()


def carry(pair: Pair, transform: DisplacementField) -> Carried:
    """Warp the moving image (linear) and its labels (nearest) by a transform."""
    labels = pair.moving_labels
    moved = None if labels is None else transform.apply(labels, interpolation="nearest")
    return Carried(transform.apply(pair.moving), moved)


@dataclass(frozen=True, eq=False)
class Moved:
    """The transforms, and the warped image and labels.

    start: the initial transform. before: warped by it alone; after: by the whole transform. folds:
    the report's entry on the repair of folds, if asked for.
    """

    start: DisplacementField
    transform: DisplacementField
    inverse: DisplacementField
    before: Carried
    after: Carried
    folds: Folds | None


def transform(pair: Pair, initial: Initial, found: Found, settings: Settings) -> Moved:
    """Make the transforms from the velocity, and warp the image and its labels.

    Raises InputError if the initial transform mirrors, and no folds are wanted.
    """
    forward, inverse = transforms(found.velocity, found.work, pair)
    folds = None
    if settings.no_folds:
        repair = without_folds(forward, initial.matrix)
        folds = measures.folds_of(repair, forward, found.start, settings.similarity)
        if repair.cells:
            forward, inverse = repair.field, repair.field.invert(pair.moving.grid, inverse)
    place = found.velocity.device
    start = DisplacementField.from_affine(initial.matrix, pair.fixed.grid, place)
    further = tuple(forward.apply(moving) for _, moving in pair.further)
    after = replace(carry(pair, forward), further=further)
    return Moved(start, forward, inverse, carry(pair, start), after, folds)


def score(pair: Pair, moved: Moved, settings: Settings) -> LabelScores | None:
    """Score the labels; None if either image has none."""
    before, after = moved.before.labels, moved.after.labels
    maps = pair.fixed_labels, pair.moving_labels, before, after
    place = moved.transform.device
    return measures.label_scores(*maps, place, steered=settings.guide_labels > 0)


@dataclass(frozen=True, eq=False)
class Quality:
    """The measures of a result. det: its Jacobian determinant (X, Y, Z), on the fixed grid."""

    det: Tensor
    jacobian: Jacobian
    inverse_consistency_mm: InverseConsistency
    labels: LabelScores | None
    points: PointScores | None
    folds: Folds | None
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
    """Measure and judge the result. scores: waits for `score` and returns its result."""
    pair, det = given.pair, moved.transform.determinant()
    jacobian = measures.jacobian_summary(det, pair.fixed.grid)
    residual = measures.inverse_residual(pair, moved.transform, moved.inverse)
    points = None
    if pair.points is not None:
        points = measures.point_scores(pair, moved.start, moved.transform)
    labels = scores()
    verdict = judge(
        Measured(
            similarity=found.change,
            affine=initial.matrix,
            doubts=initial.doubts,
            turn=best_turn(found.start),
            overlap=initial.overlap,
            reach=measures.reach_of(found.velocity, found.work),
            folded_percent=jacobian.folded_percent,
            smoothness=settings.smoothness,
            residual_mm=residual,
            spacing=pair.moving.grid.spacing,
            labels=None if settings.guide_labels else labels,
            points=points,
            folds=moved.folds,
        )
    )
    notes = measures.label_warnings(labels)
    return Quality(det, jacobian, residual, labels, points, moved.folds, verdict, notes)


def notes_of(*stages: Given | Initial | Found | Quality) -> list[str]:
    """The warnings of all stages."""
    return [note for stage in stages for note in stage.notes]
