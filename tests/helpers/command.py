"""Runs `lganet-fast register` on a small pair in this process."""

from __future__ import annotations

import os

from synthetic import oblique_grid

from lganet_fast.cli import main

GRID = oblique_grid((24, 26, 22), (3.0, 2.8, 3.2), 10)
QUICK = ["--iterations", "6x3", "--threads", "1"]


def register(*words, fixed="fixed.nii.gz", moving="moving.nii.gz", out="out"):
    return main(["register", "--fixed", fixed, "--moving", moving, "--out", out, *QUICK, *words])


LABELS = ["--fixed-labels", "fixed_labels.nii.gz", "--moving-labels", "moving_labels.nii.gz"]


def names(folder):
    return sorted(os.listdir(folder))
