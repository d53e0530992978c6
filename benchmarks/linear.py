"""`python -m benchmarks.linear`: rigid alignment of real brains from random poses, and its time.

The fixed image is the first subject of LPBA40 (LPBA40_ROOT). The moving images are the others, each
with a random pose in its header: rotated by up to 180 degrees about a random axis and shifted by up
to 100 mm. The reference of each tool is its own result from the original pose, followed by the
random pose. A result within 2 mm in the mean over the brain and within 2 degrees is a success. The
tools run in turn, each on one thread. Rows are appended to a file, and a second call continues it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lganet_fast.registration.linear import align
from lganet_fast.registration.linear.maps import about, degrees
from lganet_fast.runtime.machine import set_threads
from lganet_fast.volumes.grid import LPS, Array, Grid, Volume
from lganet_fast.volumes.nifti import load_image

CLOSE_MM, CLOSE_DEGREES = 2.0, 2.0
FARTHEST = 100.0  # mm of shift at most
SAMPLED = 4  # voxels between the points of the error


def ours(fixed: Volume, moving: Volume) -> Array:
    """Our alignment."""
    return align(fixed, moving, "rigid").matrix


def simpleitk(fixed: Volume, moving: Volume) -> Array:
    """SimpleITK: moments, then Mattes mutual information at three resolutions."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    target, source = (as_simpleitk(volume) for volume in (fixed, moving))
    start = SimpleITK.CenteredTransformInitializer(
        target,
        source,
        SimpleITK.Euler3DTransform(),
        SimpleITK.CenteredTransformInitializerFilter.MOMENTS,
    )
    method = SimpleITK.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel([1.0, 0.3, 0.05], seed=1)
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-4, numberOfIterations=200, gradientMagnitudeTolerance=1e-6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(False)
    method.SetInitialTransform(start, inPlace=False)
    return of_points(method.Execute(target, source).TransformPoint)


def antspyx(fixed: Volume, moving: Volume) -> Array:
    """ANTs, from antspyx: its search over rotations, then its rigid registration."""
    import ants

    target, source = (as_ants(ants, volume) for volume in (fixed, moving))
    with tempfile.TemporaryDirectory() as folder:
        start = str(Path(folder) / "start.mat")
        ants.affine_initializer(target, source, search_factor=20, txfn=start)
        found = ants.registration(
            target, source, "Rigid", initial_transform=start, outprefix=f"{folder}/", random_seed=1
        )
        files = found["fwdtransforms"]

        def through(point: list[float]) -> list[float]:
            for file in files:
                point = ants.read_transform(file).apply_to_point(point)
            return list(point)

        return of_points(through)


METHODS: dict[str, Callable[[Volume, Volume], Array]] = {
    "lganet_fast": ours,
    "SimpleITK": simpleitk,
    "antspyx": antspyx,
}


def placement(volume: Volume) -> tuple[list[float], list[float], Array]:
    """Spacing, origin and direction (3, 3) in LPS mm."""
    grid = volume.grid
    axes = LPS @ grid.affine[:3, :3] / grid.spacing
    left, _, right = np.linalg.svd(axes)
    return grid.spacing.tolist(), (LPS @ grid.affine[:3, 3]).tolist(), left @ right


def as_simpleitk(volume: Volume) -> Any:
    """The volume as a SimpleITK image."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.asarray(volume.data, np.float32).T)
    spacing, origin, direction = placement(volume)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction.ravel().tolist())
    return image


def as_ants(ants: Any, volume: Volume) -> Any:
    """The volume as an antspyx image."""
    spacing, origin, direction = placement(volume)
    return ants.from_numpy(np.asarray(volume.data, np.float32), origin, spacing, direction)


def of_points(through: Callable[[list[float]], Any]) -> Array:
    """The matrix (4, 4) in RAS+ mm of a linear map of LPS points."""
    corners = np.vstack([np.zeros(3), np.eye(3)])
    ends = np.array([through((LPS @ corner).tolist()) for corner in corners]) @ LPS
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = (ends[1:] - ends[0]).T, ends[0]
    return out


def pose(random: np.random.Generator, centre: Array) -> Array:
    """A random rotation about a point and a random shift: (4, 4)."""
    axis, shift = random.standard_normal((2, 3))
    axis /= np.linalg.norm(axis)
    angle = random.uniform(0, np.pi)
    cross = np.cross(np.eye(3), axis) * -1
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    shift *= random.uniform(0, FARTHEST) / np.linalg.norm(shift)
    return about(turn, centre, centre + shift)


def posed(volume: Volume, matrix: Array) -> Volume:
    """The volume moved in the world."""
    return Volume(volume.data, Grid(volume.grid.shape, matrix @ volume.grid.affine), volume.name)


def places(volume: Volume) -> Array:
    """(N, 3) evenly spaced points of a volume's foreground in RAS+ mm."""
    every = (slice(None, None, SAMPLED),) * 3
    return volume.grid.world()[every][volume.data[every] > 0]


def error(found: Array, wanted: Array, points: Array) -> tuple[float, float]:
    """The difference of two maps: in mm, as a mean over points, and in degrees."""
    apart = (found - wanted)[:3, :3] @ points.T + (found - wanted)[:3, 3:]
    turn = found[:3, :3] @ np.linalg.inv(wanted[:3, :3])
    return float(np.linalg.norm(apart, axis=0).mean()), degrees(turn)


def timed(name: str, fixed: Volume, moving: Volume) -> tuple[Array, float, float]:
    """A method's matrix, and its seconds of wall-clock and CPU time."""
    clock, processor = time.perf_counter(), time.process_time()
    matrix = METHODS[name](fixed, moving)
    return matrix, time.perf_counter() - clock, time.process_time() - processor


def measure(root: Path, out: Path, poses: int, names: list[str], seed: int, hours: float) -> None:
    """Measure the poses that the file lacks, until the time is over."""
    ends = time.monotonic() + 3600 * hours
    fixed = load_image(root / "fixed.nii.gz", "fixed")
    points = places(fixed)
    files = sorted([*root.glob("test/*.nii.gz"), *root.glob("train/*.nii.gz")])
    done = {(row["method"], row["pose"]) for row in rows_of(out)}
    straight: dict[tuple[str, Path], Array] = {}
    for number in range(poses):
        random = np.random.default_rng([seed, number])
        file = files[number % len(files)]
        wanted = [name for name in names if (name, number) not in done]
        if not wanted:
            continue
        moving = load_image(file, "moving")
        middle = moving.grid.to_world((np.array(moving.grid.shape) - 1) / 2)
        matrix = pose(random, middle)
        for name in wanted:
            if time.monotonic() > ends:
                return
            if (name, file) not in straight:
                straight[name, file] = METHODS[name](fixed, moving)
            found, clock, processor = timed(name, fixed, posed(moving, matrix))
            mm, angle = error(found, matrix @ straight[name, file], points)
            row = {
                "method": name,
                "pose": number,
                "turned": degrees(matrix[:3, :3]),
                "mm": mm,
                "degrees": angle,
                "seconds": clock,
                "processor": processor,
            }
            with open(out, "a", encoding="utf-8") as file_out:
                file_out.write(json.dumps(row) + "\n")


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows measured so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def summary(rows: list[dict[str, Any]]) -> str:
    """A line for each method."""
    lines = ["| method | poses | success | median mm | median s | median processor s |"]
    lines.append("|---|---|---|---|---|---|")
    for name in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == name]
        good = [r for r in own if r["mm"] < CLOSE_MM and r["degrees"] < CLOSE_DEGREES]
        mm, clock, processor = (
            statistics.median(row[key] for row in own) for key in ("mm", "seconds", "processor")
        )
        share = f"{100 * len(good) / len(own):.1f}%"
        lines.append(
            f"| {name} | {len(own)} | {share} | {mm:.3f} | {clock:.2f} | {processor:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--poses", type=int, default=200)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hours", type=float, default=12.0, help="start no pose after this time")
    parser.add_argument("--out", type=Path, default=Path("linear.jsonl"))
    words = parser.parse_args()
    set_threads(1)
    root = Path(os.environ["LPBA40_ROOT"])
    measure(root, words.out, words.poses, words.methods, words.seed, words.hours)
    print(summary(rows_of(words.out)))


if __name__ == "__main__":
    main()
