"""Reading linear transforms of other tools, as one matrix.

ITK and ANTs (.mat, .tfm, .txt, .h5), FSL (.mat), FreeSurfer (.lta), and 4 x 4 numbers as text.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..runtime.reading import reading
from ..volumes.grid import LPS, Array, Grid
from ..volumes.nifti import check_affine, warn
from .codecs import HDF5, linear_parts

ROUNDING = 1e-6  # the square of a versor may exceed 1 by this
LARGEST = 1 << 20  # bytes of a file; a linear transform has a few hundred
ITK_TEXT = "#Insight Transform File"
COMPOSITE = "CompositeTransform"
UNKNOWN = "it is neither text nor an ITK transform in a MATLAB 4 file"
VOXELS, WORLD = 0, 1  # types of a FreeSurfer LTA
Part = tuple[str, Array, Array]  # ITK's name of a transform, its parameters, its fixed parameters


def read_linear(path: str | os.PathLike[str], fixed: Grid | None, moving: Grid | None) -> Array:
    """Read the map of a file: (4, 4), from fixed to moving points, both in RAS+ mm.

    ITK files contain that map in LPS mm. FSL matrices map moving to fixed points, in mm along the
    voxel axes, and need both images' grids, else None; text in a .mat file is read as FSL's.
    FreeSurfer files map moving (src) to fixed (dst) points. Other text is 4 x 4 numbers, from fixed
    to moving, in RAS+ mm. Raises InputError if the file is unreadable or contains no linear map,
    and for a singular map. Warns if FreeSurfer's src is the fixed image and its dst the moving one.
    """
    path = Path(path)
    label = f"transform {path}"
    with reading(label):
        if not path.is_file():
            raise InputError(f"{label} does not exist or is not a file")
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    if content.startswith(HDF5):
        return check_affine(from_lps(joined(linear_parts(path))), label)
    with reading(label):
        if len(content) > LARGEST:
            raise ValueError(f"it is larger than a linear transform can be, {LARGEST} bytes")
        if b"\0" in content[:20]:
            matrix = from_lps(itk_matrix([matlab_part(content)]))
        else:
            text = as_text(content)
            if is_lta(text):
                matrix = lta_matrix(text, fixed, moving, label)
            else:
                matrix = of_text(text, path.suffix.lower(), fixed, moving)
    return check_affine(matrix, label)


def as_text(content: bytes) -> str:
    """The text of a file, without a byte order mark."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(UNKNOWN) from error


def of_text(text: str, extension: str, fixed: Grid | None, moving: Grid | None) -> Array:
    """The map of a text other than an LTA."""
    if text.startswith(ITK_TEXT):
        return from_lps(itk_matrix(text_parts(text)))
    numbers = matrix_of(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    if extension != ".mat":
        return numbers
    if fixed is None or moving is None:
        raise ValueError("it is FSL's, which needs both images: give it alone, with an image")
    return fsl_matrix(numbers, fixed, moving)


def matrix_of(lines: Iterable[str]) -> Array:
    """The matrix of four lines with four numbers each."""
    rows = [line.replace(",", " ").split() for line in lines if line.strip()]
    if [len(row) for row in rows] != [4, 4, 4, 4]:
        raise ValueError("it has no ITK or FreeSurfer transform, and is not 4 lines of 4 numbers")
    return np.array(rows, np.float64)


def from_lps(matrix: Array) -> Array:
    """A map (4, 4) of LPS mm as one of RAS+ mm."""
    flip = np.eye(4)
    flip[:3, :3] = LPS
    return np.asarray(flip @ matrix @ flip)


def joined(matrices: Sequence[Array]) -> Array:
    """The map of an ITK composite: the last transform is applied first."""
    out = np.eye(4)
    for matrix in matrices:
        out = out @ matrix
    return out


def matlab_part(content: bytes) -> Part:
    """The transform in a MATLAB 4 file, as ANTs writes it: two named arrays."""
    found: list[tuple[str, Array]] = []
    start = 0
    while start < len(content):
        if len(content) < start + 20:
            raise ValueError("it is cut short" if found else UNKNOWN)
        kind, rows, columns, _, length = struct.unpack_from("<5I", content, start)
        start += 20
        if kind not in (0, 10):
            raise ValueError(UNKNOWN)
        name = content[start : start + length].rstrip(b"\0").decode()
        start += length
        values = np.frombuffer(content, "<f4" if kind == 10 else "<f8", rows * columns, start)
        start += values.nbytes
        found.append((name, values.astype(np.float64)))
    if len(found) != 2 or found[1][0] != "fixed":
        names = ", ".join(name for name, _ in found)
        raise ValueError(f"it holds {names or 'nothing'}, not one ITK transform and 'fixed'")
    return found[0][0], found[0][1], found[1][1]


def text_parts(text: str) -> list[Part]:
    """The transforms in an ITK text file."""
    parts = []
    for block in re.split(r"^#Transform", text, flags=re.MULTILINE)[1:]:
        lines = dict(re.findall(r"^(\w+):(.*)$", block, re.MULTILINE))
        own, fixed = (lines.get(key, "").split() for key in ("Parameters", "FixedParameters"))
        name = lines.get("Transform", "").strip()
        parts.append((name, np.array(own, np.float64), np.array(fixed, np.float64)))
    if len(parts) > 1 and not parts[0][0].startswith(COMPOSITE):
        raise ValueError(f"it holds {len(parts)} transforms, but no composite that orders them")
    return parts


def itk_matrix(parts: Sequence[Part]) -> Array:
    """The map (4, 4) in LPS mm of ITK transforms, in the order of their composite."""
    matrices = [part_matrix(*part) for part in parts if not part[0].startswith(COMPOSITE)]
    if not matrices:
        raise ValueError("it holds no transform")
    return joined(matrices)


def part_matrix(name: str, own: Array, fixed: Array) -> Array:
    """The map (4, 4) in LPS mm of one ITK transform."""
    kind, _, sizes = name.partition("_")
    counts = {
        "AffineTransform": 12,
        "MatrixOffsetTransformBase": 12,
        "Euler3DTransform": 6,
        "VersorRigid3DTransform": 6,
        "Similarity3DTransform": 7,
        "TranslationTransform": 3,
        "IdentityTransform": 0,
    }
    if kind not in counts or not sizes.endswith("_3_3"):
        raise ValueError(f"its {name} is not 3-D, or none of {', '.join(counts)}")
    if len(own) != counts[kind]:
        raise ValueError(f"its {name} has {len(own)} parameters, not {counts[kind]}")
    out = np.eye(4)
    if kind == "IdentityTransform":
        return out
    if kind == "TranslationTransform":
        out[:3, 3] = own
        return out
    if len(fixed) < 3:
        raise ValueError(f"its {name} has no centre")
    if counts[kind] == 12:
        out[:3, :3] = own[:9].reshape(3, 3)
    elif kind == "Euler3DTransform":
        out[:3, :3] = euler(own[:3], bool(len(fixed) > 3 and fixed[3]))
    else:
        out[:3, :3] = versor(own[:3]) * (own[6] if kind == "Similarity3DTransform" else 1)
    shift = own[9:12] if counts[kind] == 12 else own[3:6]
    out[:3, 3] = shift + fixed[:3] - out[:3, :3] @ fixed[:3]
    return out


def euler(angles: Array, about_y_second: bool) -> Array:
    """ITK's rotation (3, 3) by three angles in radians: Z X Y, or Z Y X, the last applied first."""
    turns = []
    for axis, (c, s) in enumerate(zip(np.cos(angles), np.sin(angles), strict=True)):
        turn = np.eye(3)
        one, other = (axis + 1) % 3, (axis + 2) % 3
        turn[[one, one, other, other], [one, other, one, other]] = c, -s, s, c
        turns.append(turn)
    x, y, z = turns
    return np.asarray(z @ y @ x if about_y_second else z @ x @ y)


def versor(part: Array) -> Array:
    """The rotation (3, 3) whose unit quaternion has this vector part (3,)."""
    x, y, z = part
    square = float(part @ part)
    if square > 1 + ROUNDING:
        raise ValueError(f"its versor has length {math.sqrt(square):.6g}, must be at most 1")
    w = math.sqrt(max(0.0, 1 - square))
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + 2 * w * cross + 2 * cross @ cross)


def fsl_matrix(matrix: Array, fixed: Grid, moving: Grid) -> Array:
    """The map from fixed to moving points in RAS+ mm of an FSL FLIRT matrix.

    FLIRT maps moving to fixed points, in mm along the voxel axes, with x reversed if these axes are
    right-handed.
    """

    def along_axes(grid: Grid) -> Array:
        out = np.diag([*grid.spacing, 1.0])
        if np.linalg.det(grid.affine[:3, :3]) > 0:
            out[0] = -grid.spacing[0], 0, 0, (grid.shape[0] - 1) * grid.spacing[0]
        return out

    to_moving = moving.affine @ np.linalg.inv(along_axes(moving))
    return np.asarray(
        to_moving @ np.linalg.inv(matrix) @ along_axes(fixed) @ np.linalg.inv(fixed.affine)
    )


def is_lta(text: str) -> bool:
    """Whether a text is a FreeSurfer LTA."""
    return re.search(r"^\s*nxforms\s*=", text, re.MULTILINE) is not None


def lta_matrix(text: str, fixed: Grid | None, moving: Grid | None, label: str) -> Array:
    """The map from fixed to moving points of a FreeSurfer LTA, in voxel or world coordinates.

    label: the name in warnings.
    """
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    start = next((i for i, line in enumerate(lines) if line.split() == ["1", "4", "4"]), None)
    if start is None:
        raise ValueError("it has no matrix after a line 1 4 4")
    matrix = matrix_of(lines[start + 1 : start + 5])
    kind, count = (int(field_of(lines[:start], name)[0]) for name in ("type", "nxforms"))
    if count != 1:
        raise ValueError(f"it holds {count} transforms, one is needed")
    if kind not in (VOXELS, WORLD):
        raise ValueError(f"its type must be 0 (voxels) or 1 (world), got {kind}")
    source, target = (volume_grid(lines, side) for side in ("src", "dst"))
    if source and target and fixed and moving:
        backwards = source.matches(fixed) and target.matches(moving)
        if backwards and not (source.matches(moving) and target.matches(fixed)):
            warn(
                f"{label}: its src is the fixed image and its dst the moving one, but it is read "
                "as a map from moving to fixed; if the result is wrong, invert it"
            )
    if kind == WORLD:
        return np.asarray(np.linalg.inv(matrix))
    if source is None or target is None:
        raise ValueError("it is in voxels, but does not describe its src and dst volumes")
    return np.asarray(source.affine @ np.linalg.inv(matrix) @ np.linalg.inv(target.affine))


def field_of(lines: Sequence[str], name: str) -> list[str]:
    """The words after "name =" in the lines of an LTA."""
    for line in lines:
        key, equals, words = line.partition("=")
        if equals and key.strip() == name:
            return words.split()
    raise ValueError(f"it lacks {name!r}")


def volume_grid(lines: Sequence[str], side: str) -> Grid | None:
    """The grid of an LTA's "src" or "dst" volume; None if it is not described."""
    heading = f"{side} volume info"
    if heading not in lines:
        return None
    own = lines[lines.index(heading) + 1 :]
    own = own[: next((i for i, line in enumerate(own) if line.endswith("volume info")), None)]
    if not any(re.fullmatch(r"valid\s*=\s*1", line) for line in own):
        return None

    def numbers(name: str) -> Array:
        return np.array(field_of(own, name)[:3], np.float64)

    size = numbers("volume")
    affine = np.eye(4)
    axes = np.stack([numbers(f"{axis}ras") for axis in "xyz"], 1)
    affine[:3, :3] = axes * numbers("voxelsize")
    affine[:3, 3] = numbers("cras") - affine[:3, :3] @ (size / 2)
    a, b, c = (int(n) for n in size)
    return Grid((a, b, c), check_affine(affine, f"the {side} volume of the transform"))
