"""Draws docs/demo.png from the folder that `lganet-fast demo --out DIR` writes.

Run: python docs/make_picture.py DIR
"""

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure

from lganet_fast import DisplacementField

SPACING = 8  # mm between the lines of the lattice


def main(folder: Path) -> None:
    """Fixed, moving and warped, the differences and the deformed lattice in one coronal plane."""
    data = {
        name: np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj, float)
        for name in ("fixed", "moving", "warped")
    }
    data = {name: x / np.percentile(x[x > 0], 99) for name, x in data.items()}
    transform = DisplacementField.load(folder / "warp.nii.gz")
    plane = int(data["fixed"].shape[1] * 0.47)
    panels = [
        ("fixed", data["fixed"], "gray", (0, 1.1)),
        ("moving", data["moving"], "gray", (0, 1.1)),
        ("moving, registered", data["warped"], "gray", (0, 1.1)),
        ("difference before", data["moving"] - data["fixed"], "RdBu_r", (-0.7, 0.7)),
        ("difference after", data["warped"] - data["fixed"], "RdBu_r", (-0.7, 0.7)),
    ]
    figure = Figure(figsize=(11, 2.1), layout="constrained")
    axes = figure.subplots(1, 6)
    for ax, (title, volume, colours, limits) in zip(axes, panels, strict=False):
        ax.imshow(volume[:, plane].T, origin="lower", cmap=colours, clim=limits)
        ax.set_title(title, fontsize=9)
    ax = axes[-1]
    ax.imshow(data["warped"][:, plane].T, origin="lower", cmap="gray", clim=(0, 2))
    points = transform.map(transform.grid.world())[:, plane]
    for axis in (0, 2):
        levels = np.arange(points[..., axis].min(), points[..., axis].max(), SPACING)
        ax.contour(
            points[..., axis].T, levels, colors="#e8b93c", linewidths=0.7, linestyles="solid"
        )
    ax.set_title("deformed lattice", fontsize=9)
    for ax in axes:
        ax.set_axis_off()
    figure.savefig(Path(__file__).parent / "demo.png", dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
