"""Inputs, settings and outputs of a registration; settings are checked once.

The defaults are defined here alone: Python, the command and its help use DEFAULTS and RUN.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    import torch

    from ..volumes.nifti import Source
    from ..volumes.points import PointSource

PathLike = str | os.PathLike[str]
WARPED, WARPED_LABELS = "warped.nii.gz", "warped_labels.nii.gz"
WARP, INVERSE_WARP = "warp.nii.gz", "inverse_warp.nii.gz"
REPORT, PAGE = "report.json", "qc.html"
MOST_CHANNELS = 8
FURTHER = tuple(f"warped_{n}.nii.gz" for n in range(2, MOST_CHANNELS + 1))  # channels, warped
OUTPUTS = (WARPED, WARP, INVERSE_WARP, WARPED_LABELS, REPORT, PAGE)
MOST_LEVELS = 8
STIFFEST = 1e6  # largest smoothness; nothing moves from here on
POINTS_WEIGHT = 0.02  # per mm^2 of the mean squared distance of matching points
HEAVIEST = 1e6  # largest weight of a guide
PRECISIONS = ("float32", "float64")
INITIALS = ("identity", "center", "moments", "rigid", "similarity", "affine")


@dataclass(frozen=True)
class Tuning:
    """Defaults and constants of a similarity measure.

    smoothness: weight of the squared gradient of the displacement. bytes_per_voxel: memory per
    voxel of the working grid, measured, optimising in float32. nothing_left: distance from perfect
    similarity with nothing left to gain: an image against itself with a little noise.
    """

    smoothness: float
    bytes_per_voxel: int
    nothing_left: float


TUNING = {  # of each measure of losses.dissimilarity.SIMILARITIES
    "lncc": Tuning(smoothness=1.0, bytes_per_voxel=220, nothing_left=0.02),
    "mse": Tuning(smoothness=0.1, bytes_per_voxel=220, nothing_left=1e-3),
    "mind": Tuning(smoothness=1.0, bytes_per_voxel=600, nothing_left=5e-3),
    "mi": Tuning(smoothness=3.0, bytes_per_voxel=350, nothing_left=0.05),
}
SMOOTHNESS = {name: tuning.smoothness for name, tuning in TUNING.items()}


@dataclass(frozen=True)
class Preset:
    """The length of the search; docs/registration.md compares them.

    iterations: most per level, coarse to fine. after_network: the same where a network has
    registered first. again: of a second search, from where the first one ended; none where empty.
    """

    iterations: tuple[int, ...]
    after_network: tuple[int, ...]
    again: tuple[int, ...] = ()


PRESETS = {
    "fast": Preset((30, 15, 15, 10, 0), (0, 0, 0, 10, 0)),
    "default": Preset((30, 15, 15, 10, 5), (0, 0, 0, 10, 10)),
    "best": Preset((40, 40, 40, 20, 10), (0, 0, 0, 10, 10), again=(0, 0, 30, 20, 10)),
}
ITERATIONS = PRESETS["default"].iterations
AFTER_NETWORK = PRESETS["default"].after_network


@dataclass(frozen=True, eq=False)
class Sources:
    """The images to register, their labels and masks; None for those not given.

    fixed, moving: an image, or a list of as many channels on both sides, on grids of their own.
    Labels and masks are on their image's grid. fixed_points, moving_points: matching by row.
    """

    fixed: Source | list[Source] | None
    moving: Source | list[Source] | None
    fixed_labels: Source | None = None
    moving_labels: Source | None = None
    fixed_mask: Source | None = None
    moving_mask: Source | None = None
    fixed_points: PointSource | None = None
    moving_points: PointSource | None = None

    def points(self) -> dict[str, PointSource]:
        """The given points, by role."""
        found = ((role, getattr(self, role)) for role in POINT_ROLES)
        return {role: source for role, source in found if source is not None}

    def given(self) -> dict[str, Source]:
        """The given images, labels and masks, by role."""
        found = ((role, getattr(self, role)) for role in ROLES[2:])
        others = {role: source for role, source in found if source is not None}
        return {**self.images("fixed"), **self.images("moving"), **others}

    def images(self, side: str) -> dict[str, Source]:
        """The given images of a side, "fixed" or "moving": it, and with channels "fixed_2", ..."""
        given: Source | list[Source] | None = getattr(self, side)
        found = given if isinstance(given, list) else [] if given is None else [given]
        return {side if n == 1 else f"{side}_{n}": x for n, x in enumerate(found, start=1)}


POINT_ROLES = ("fixed_points", "moving_points")
ROLES = tuple(field.name for field in fields(Sources) if field.name not in POINT_ROLES)


@dataclass(frozen=True)
class Settings:
    """The settings that affect the result; `register` explains each.

    Made by `check_settings`, which rejects invalid values. again: iterations of a second search;
    empty for none. points_weight: 0 where no points pull. guide_labels: 0 where labels
    do not steer.
    """

    similarity: str = "lncc"
    iterations: tuple[int, ...] = ITERATIONS
    smoothness: float = SMOOTHNESS["lncc"]
    initial: str = INITIALS[0]
    precision: str = "float32"
    checkpoint: str | None = None
    preset: str = "default"
    again: tuple[int, ...] = ()
    points_weight: float = 0.0
    guide_labels: float = 0.0
    channel_weights: tuple[float, ...] = (1.0,)
    no_folds: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The optimiser's data type."""
        import torch

        return getattr(torch, self.precision)


@dataclass(frozen=True)
class Run:
    """Options on how to run and what to write; none of them changes the transform.

    `register` explains each.
    """

    out: PathLike | None = None
    device: str = "auto"
    threads: int | None = None
    qc: bool = True
    overwrite: bool = False
    share: bool = False
    quiet: bool = True

    def outputs(self, sources: Sources) -> list[str]:
        """The names of the files written for a pair."""
        lacking = {WARPED_LABELS: sources.moving_labels is None, PAGE: not self.qc}
        names = [name for name in OUTPUTS if not lacking.get(name)]
        return [*names, *FURTHER[: len(sources.images("moving")) - 1]]


DEFAULTS, RUN = Settings(), Run()
DEMO_SEED = 0  # of the demo's deformation and noise


def check_settings(
    similarity: str = DEFAULTS.similarity,
    iterations: Sequence[int] | None = None,
    smoothness: float | None = None,
    initial: PathLike = DEFAULTS.initial,
    affine: bool = False,
    precision: str = DEFAULTS.precision,
    checkpoint: PathLike | None = DEFAULTS.checkpoint,
    preset: str = DEFAULTS.preset,
    points_weight: float | None = None,
    guide_labels: float = DEFAULTS.guide_labels,
    channel_weights: tuple[float, ...] = DEFAULTS.channel_weights,
    no_folds: bool = DEFAULTS.no_folds,
) -> Settings:
    """Make Settings from the arguments. Raises InputError for invalid values.

    None stands for the default, which depends on the preset and the network for iterations and on
    the similarity for smoothness; without a weight of the points, they have none. Given iterations
    or a network leave out the second search.
    """
    for name, value, allowed in (
        ("similarity", similarity, tuple(TUNING)),
        ("precision", precision, PRECISIONS),
        ("preset", preset, tuple(PRESETS)),
    ):
        if value not in allowed:
            raise InputError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    weights = None if checkpoint is None else check_path("checkpoint", checkpoint)
    chosen = PRESETS[preset]
    own = chosen.iterations if weights is None else chosen.after_network
    counts = check_iterations(own if iterations is None else iterations, weights is not None)
    again = chosen.again if iterations is None and weights is None else ()
    strength = TUNING[similarity].smoothness if smoothness is None else smoothness
    if not is_number(strength) or not 0 <= strength <= STIFFEST:
        raise InputError(f"smoothness must be a number from 0 to {STIFFEST:g}, got {strength!r}")
    pull = 0.0 if points_weight is None else points_weight
    if points_weight is not None and not (is_number(pull) and 0 < pull <= HEAVIEST):
        raise InputError(f"points_weight must be a number above 0, to {HEAVIEST:g}, got {pull!r}")
    if not is_number(guide_labels) or not 0 <= guide_labels <= HEAVIEST:
        raise InputError(
            f"guide_labels must be a number from 0 to {HEAVIEST:g}, got {guide_labels!r}"
        )
    if not isinstance(no_folds, bool):
        raise InputError(f"no_folds must be True or False, got {no_folds!r}")
    return Settings(
        similarity,
        counts,
        float(strength),
        check_initial(initial, affine),
        precision,
        weights,
        preset,
        again,
        float(pull),
        float(guide_labels),
        channel_weights,
        no_folds,
    )


def check_channels(sources: Sources, weights: Sequence[float] | None) -> tuple[float, ...]:
    """The weight of each channel, as given or 1.

    Raises InputError unless both sides have the same number of images, 1 to MOST_CHANNELS, and for
    weights that are not above 0, one a channel.
    """
    count, other = (len(sources.images(side)) for side in ("fixed", "moving"))
    for side, number in (("fixed", count), ("moving", other)):
        if not 1 <= number <= MOST_CHANNELS:
            what = f"{number} images, more than {MOST_CHANNELS}" if number else "missing"
            raise InputError(f"{side} is {what}: pass a volume, or a list with one a channel")
    if count != other:
        raise InputError(f"fixed is {count} images and moving is {other}: a channel is one of each")
    if weights is None:
        return (1.0,) * count
    if count == 1:
        raise InputError("channel_weights are for several channels, got one")
    found = tuple(weights) if isinstance(weights, Sequence) and not isinstance(weights, str) else ()
    if len(found) != count or not all(is_number(x) and 0 < x <= HEAVIEST for x in found):
        raise InputError(
            f"channel_weights must be {count} numbers above 0, to {HEAVIEST:g}, one for each "
            f"channel; got {weights!r}"
        )
    return tuple(map(float, found))


def check_points(sources: Sources, points_weight: float | None) -> float | None:
    """The weight of a pair's points: as given, by default POINTS_WEIGHT; None without points.

    Raises InputError unless both images have points, or neither has and there is no weight.
    """
    given = sources.points()
    for role in POINT_ROLES:
        if role not in given and (given or points_weight is not None):
            other = next(iter(given), "points_weight")
            raise InputError(f"{other} needs {role}")
    return POINTS_WEIGHT if given and points_weight is None else points_weight


def check_initial(initial: PathLike, affine: bool) -> str:
    """Check the initial linear transform: one of INITIALS, or the path of a transform.

    affine: short for "affine". Raises InputError for invalid values.
    """
    name = check_path("initial", initial)
    if affine:
        if name not in (DEFAULTS.initial, "affine"):
            raise InputError(f"affine is short for initial affine, but initial is {name!r}")
        return "affine"
    if name not in INITIALS and not os.path.isfile(name):
        raise InputError(
            f"initial must be one of {', '.join(INITIALS)}, or a file with a linear transform, "
            f"got {name!r}"
        )
    return name


def check_iterations(iterations: Sequence[int], network: bool) -> tuple[int, ...]:
    """Check the iterations per level; network: whether a network registers first.

    Raises InputError for invalid values; all 0 is allowed only with a network.
    """
    listed = isinstance(iterations, Sequence) and not isinstance(iterations, str)
    counts = tuple(iterations) if listed else ()
    whole = all(isinstance(n, int) and n >= 0 for n in counts)
    idle = not any(counts) and not (network and counts)
    if not whole or idle or len(counts) > MOST_LEVELS:
        got = "x".join(map(str, counts)) or "none" if listed else repr(iterations)
        raise InputError(
            f"iterations must be 1 to {MOST_LEVELS} whole numbers from 0 on, all 0 only with a "
            f"checkpoint, coarse to fine, such as {'x'.join(map(str, ITERATIONS))}; got {got}"
        )
    return counts


def check_path(name: str, value: object) -> str:
    """A path as text. Raises InputError for a value that is neither text nor an os.PathLike."""
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str):
        raise InputError(f"{name} must be text or a path, got {value!r}")
    return path


def is_number(value: object) -> bool:
    """Whether the value is a real number, of Python or NumPy."""
    return isinstance(value, Real) and not isinstance(value, bool)
