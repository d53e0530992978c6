"""Registration of a pair with labels, from files to files, against ANTs' SyN."""

import importlib.util
import os
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

import lganet_fast
from lganet_fast.metrics.scores import dice

from .case import Case, Way

NAMES = ("fixed", "moving", "fixed_labels", "moving_labels")


@cache
def template_pair():
    """The demo's brain and its deformed copy, in a temporary folder until the process ends."""
    from lganet_fast.registration import demo

    folder = tempfile.TemporaryDirectory()
    demo.save_pair(demo.make_pair(*demo.load_template(2), 0), Path(folder.name))
    return folder, {name: f"{folder.name}/{name}.nii.gz" for name in NAMES}


def template_files():
    """The paths of the demo's pair."""
    return template_pair()[1]


def lpba40_files():
    """The paths of S01, to which S02 is registered."""
    root = Path(os.environ["LPBA40_ROOT"])
    label = "label/{}.delineation.structure.label.nii.gz"
    moving = "test/S02.delineation.skullstripped.nii.gz"
    paths = ("fixed.nii.gz", moving, label.format("S01"), label.format("S02"))
    return {name: str(root / path) for name, path in zip(NAMES, paths, strict=True)}


def no_template(device):
    """Why there is no template, or None."""
    return None if importlib.util.find_spec("nilearn") else "nilearn is not installed"


def no_lpba40(device):
    """Why there are no LPBA40 volumes, or None."""
    return (
        None
        if os.environ.get("LPBA40_ROOT")
        else "LPBA40_ROOT does not name the folder of the data"
    )


def no_syn(device):
    """Why SyN cannot run, or None."""
    if device != "cpu":
        return "ANTs runs on the CPU alone"
    return None if importlib.util.find_spec("ants") else "antspyx is not installed"


def syn(files):
    """ANTs' SyN with its defaults; the labels by nearest neighbour."""

    def build(size, dtype, device):
        import ants

        paths = files()

        def call():
            images = {name: ants.image_read(path) for name, path in paths.items()}
            fixed, moving = images["fixed"], images["moving"]
            found = ants.registration(fixed, moving, type_of_transform="SyN")
            moved = ants.apply_transforms(
                fixed,
                images["moving_labels"],
                found["fwdtransforms"],
                interpolator="nearestNeighbor",
            )
            with tempfile.TemporaryDirectory() as folder:
                ants.image_write(found["warpedmovout"], f"{folder}/warped.nii.gz")
                ants.image_write(moved, f"{folder}/warped_labels.nii.gz")
            for path in {*found["fwdtransforms"], *found["invtransforms"]}:
                Path(path).unlink(missing_ok=True)
            still = images["fixed_labels"].numpy().round().astype(np.int32)
            scores = dice(still, moved.numpy().round().astype(np.int32))
            return {"dice": float(np.mean(list(scores.values())))}

        return call

    return build


def ours(files):
    """register() with its defaults, with the quality page."""

    def build(size, dtype, device):
        paths = files()

        def call():
            with tempfile.TemporaryDirectory() as folder:
                done = lganet_fast.register(**paths, out=folder, device=device)
            return {"dice": done.report["labels"]["mean_dice_after"]}

        return call

    return build


def of(detail, size, files, missing, **options):
    """A case."""

    def syn_missing(device):
        return missing(device) or no_syn(device)

    return Case(
        "register",
        size,
        {"SyN": Way(syn(files), syn_missing), "auto": Way(ours(files), missing)},
        lambda size, dtype, device: (),
        detail=detail,
        modes=("command",),
        tolerance=None,
        warm=False,
        any_size=False,
        **options,
    )


CASES = [
    of(
        "MNI152 template to its copy",
        (88, 104, 87),
        template_files,
        no_template,
        quick=True,
        memory=True,
        rounds=2,
    ),
    of("LPBA40 S02 to S01", (160, 192, 160), lpba40_files, no_lpba40, rounds=2),
]


def test_register(measure):
    measure()
