"""The voxel positions in an image's header, and ambiguities that tools resolve differently."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import nibabel as nib
import numpy as np
from nibabel import imageglobals

from ..errors import InputError
from ..runtime.reading import reading
from .grid import Array, Forms, Grid

UNITS = {1: 1e3, 3: 1e-3}  # NIfTI's codes of metres and micrometres, in mm; all others are mm
APART = 0.1  # voxels: allowed difference of qform and sform
_heard: ContextVar[list[str] | None] = ContextVar("heard", default=None)


class _Ear(logging.Filter):
    """Collects nibabel's messages about a header, for a line that names the file."""

    def filter(self, record: logging.LogRecord) -> bool:
        notes = _heard.get()
        if notes is not None:
            notes.append(record.getMessage())
        return notes is None


imageglobals.logger.addFilter(_Ear())


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collect nibabel's messages in the block instead of printing them."""
    notes: list[str] = []
    token = _heard.set(notes)
    try:
        yield notes
    finally:
        _heard.reset(token)


def placement(image: nib.spatialimages.SpatialImage, label: str) -> Array:
    """The affine from voxel index to RAS+ mm, from any unit of the header; not checked."""
    with reading(label):
        return in_mm(np.asarray(image.affine, np.float64), image)


def in_mm(affine: Array, image: nib.spatialimages.SpatialImage) -> Array:
    """An affine of an image's header, in mm."""
    if not isinstance(image, nib.Nifti1Pair):
        return affine
    factor = UNITS.get(int(image.header["xyzt_units"]) & 7, 1.0)
    return np.diag([factor, factor, factor, 1.0]) @ affine


def forms_of(image: nib.spatialimages.SpatialImage) -> Forms | None:
    """Qform and sform of a NIfTI file; None for an image in memory, another format, or invalid."""
    if not isinstance(image, nib.Nifti1Pair) or image.file_map["image"].filename is None:
        return None
    try:
        with reading("qform and sform"):
            header = image.header
            codes = int(header["qform_code"]), int(header["sform_code"])
            qform, sform = (in_mm(form, image) for form in (header.get_qform(), header.get_sform()))
    except InputError:
        return None
    return Forms(qform, codes[0], sform, codes[1])


def disagreements(image: nib.spatialimages.SpatialImage, grid: Grid) -> list[str]:
    """Ambiguities of the header that other tools may resolve differently, a phrase each."""
    if isinstance(image, nib.AnalyzeImage) and not isinstance(image, nib.Nifti1Pair):
        return ["an Analyze file does not record left and right: tools interpret it differently"]
    forms = forms_of(image)
    if forms is None:
        return []
    if forms.qform_code == forms.sform_code == 0:
        return [
            "neither qform nor sform is set: its orientation is unknown; it is read as "
            f"{''.join(nib.aff2axcodes(grid.affine))}, but other tools may differ"
        ]
    if forms.qform_code == 0 or forms.sform_code == 0:
        return []
    one, other = (Grid(grid.shape, form) for form in (forms.qform, forms.sform))
    apart = float(np.linalg.norm(one.corners() - other.corners(), axis=1).max())
    if apart <= APART * grid.spacing.min():
        return []
    sides = [np.sign(np.linalg.det(form[:3, :3])) for form in (forms.qform, forms.sform)]
    mirrored = " and disagree about left and right" if sides[0] != sides[1] else ""
    return [
        f"qform and sform differ by up to {apart:.3g} mm{mirrored}: the sform is used, other tools "
        "may use the qform"
    ]
