"""`python -m benchmarks.contrasts`: a brain onto its own copy in another contrast, by similarity.

The MNI152 template (of nilearn, 2 mm) is deformed as in the demo. The plain copy is only deformed;
the other one is also inverted, bent by a gamma and shaded. Printed is how far the transform of each
similarity is from the true one, the mean over the brain in mm.
"""

from __future__ import annotations

import argparse

import numpy as np

from lganet_fast import register
from lganet_fast.registration.demo import (
    BIAS,
    BIAS_MM,
    deformation,
    distances,
    load_template,
    smooth_noise,
)
from lganet_fast.volumes.grid import Array

GAMMA = 0.7
DARKEST = 0.1  # of the inverted brain, where the template is brightest
RUNS = (("plain", "lncc"), ("other", "mind"), ("other", "mi"))


def other_contrast(copy: Array, inside: Array, shading: Array) -> Array:
    """The copy inverted, bent and shaded; inside: where it has brain."""
    bright = np.percentile(copy[inside], 99.9)
    inverted = DARKEST + (1 - DARKEST) * (1 - np.clip(copy / bright, 0, 1))
    return np.where(inside, inverted**GAMMA * shading, 0)


def errors(resolution: int, seed: int) -> dict[tuple[str, str], dict[str, float]]:
    """The errors in mm of each of RUNS, and of no registration: "mean", "p95", "max"."""
    template, tissues = load_template(resolution)
    grid, random = template.grid, np.random.default_rng(seed)
    phi, guess = deformation(grid, random)
    truth = phi.invert(guess=guess).displacement
    inside = phi.apply(tissues, interpolation="label").data > 0
    noise = smooth_noise(grid, BIAS_MM, random)
    copy = np.where(inside, phi.apply(template).data, 0)
    other = other_contrast(copy, inside, 1 + BIAS * noise / np.abs(noise).max())
    images, brain = {"plain": copy, "other": other}, tissues.data > 0
    found = {("either", "none"): distances(truth[brain])}
    for name, similarity in RUNS:
        moving = images[name].astype(np.float32), grid.affine
        result = register((template.data, grid.affine), moving, similarity=similarity)
        found[name, similarity] = distances(result.transform.displacement[brain] - truth[brain])
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contrasts", description=__doc__)
    parser.add_argument("--resolution", type=int, default=2, help="voxel size in mm")
    parser.add_argument("--seed", type=int, default=0, help="of the deformation and the shading")
    options = parser.parse_args()
    found = errors(options.resolution, options.seed)
    against = found["plain", "lncc"]["mean"]
    print("| copy | similarity | mean error (mm) | 95th percentile | of lncc on the plain copy |")
    print("|---|---|---|---|---|")
    for (name, similarity), error in found.items():
        mean = error["mean"]
        print(f"| {name} | {similarity} | {mean:.2f} | {error['p95']:.2f} | {mean / against:.2f} |")


if __name__ == "__main__":
    main()
