"""Linear maps in other tools' files, against what those tools make of them."""

import sys

import numpy as np
import pytest
from scipy.io import savemat
from scipy.spatial.transform import Rotation
from synthetic import oblique_grid

from lganet_fast.errors import InputError, InputWarning
from lganet_fast.transforms.linear_files import read_linear
from lganet_fast.volumes.grid import Grid

FIXED = oblique_grid((20, 24, 18), (1.0, 1.5, 2.0), 15)
MOVING = oblique_grid((22, 20, 26), (2.0, 1.2, 1.1), -30)
LEFT_HANDED = Grid(FIXED.shape, FIXED.affine @ np.diag([-1.0, 1, 1, 1]))
POINTS = np.random.default_rng(0).uniform(-40, 40, (6, 3))


def a_map():
    """A map in RAS+ mm with turn, scale, shear and shift."""
    out = np.eye(4)
    turn = Rotation.from_rotvec([0.3, -0.5, 0.8]).as_matrix()
    out[:3, :3] = turn @ [[1.1, 0.05, 0], [0, 0.9, 0.02], [0, 0, 1.2]]
    out[:3, 3] = 12, -7, 30
    return out


def moved(matrix, points=POINTS):
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def itk_moved(transform):
    """POINTS through a transform of ITK."""
    flip = np.array([-1, -1, 1])
    return np.array([transform.TransformPoint((p * flip).tolist()) for p in POINTS]) * flip


def itk_transforms(sitk):
    turn = Rotation.from_rotvec([0.2, 0.4, -0.3]).as_matrix()
    affine = sitk.AffineTransform((turn * [1.1, 0.9, 1.2]).ravel().tolist(), (4, -5, 6), (1, 2, 3))
    euler = sitk.Euler3DTransform((7, 8, 9), 0.3, -0.2, 0.5, (1, -2, 3))
    other = sitk.Euler3DTransform(euler)
    other.SetComputeZYX(True)
    versor = sitk.VersorRigid3DTransform((0, 0.6, 0.8), 0.7, (3, 2, 1), (4, 5, 6))
    similar = sitk.Similarity3DTransform(1.2, (1, 0, 0), 0.4, (3, 2, 1), (4, 5, 6))
    shift = sitk.TranslationTransform(3, (5.0, 6.0, 7.0))
    several = sitk.CompositeTransform([affine, euler, shift])
    return {
        "affine": affine,
        "euler": euler,
        "zyx": other,
        "versor": versor,
        "similar": similar,
        "shift": shift,
        "several": several,
    }


@pytest.mark.parametrize("extension", ["tfm", "txt", "h5", "mat"])
@pytest.mark.parametrize(
    "name", ["affine", "euler", "zyx", "versor", "similar", "shift", "several"]
)
def test_reads_what_itk_writes(tmp_path, name, extension):
    sitk = pytest.importorskip("SimpleITK")
    transform = itk_transforms(sitk)[name]
    if name == "several" and extension == "mat":
        pytest.skip("ITK writes no composite as .mat")
    path = tmp_path / f"t.{extension}"
    sitk.WriteTransform(transform, str(path))
    found = read_linear(path, FIXED, MOVING)
    np.testing.assert_allclose(moved(found), itk_moved(transform), atol=1e-9)


def test_reads_what_ants_writes(tmp_path):
    ants = pytest.importorskip("ants")
    transform = ants.create_ants_transform(
        transform_type="AffineTransform",
        matrix=a_map()[:3, :3],
        offset=(1.0, 2.0, 3.0),
        center=(4.0, 5.0, 6.0),
    )
    path = tmp_path / "0GenericAffine.mat"
    ants.write_transform(transform, str(path))
    flip = np.array([-1, -1, 1])
    there = np.array([transform.apply_to_point((p * flip).tolist()) for p in POINTS]) * flip
    np.testing.assert_allclose(moved(read_linear(path, FIXED, MOVING)), there, atol=1e-4)


def test_no_simpleitk_is_needed_but_for_h5(tmp_path, monkeypatch):
    sitk = pytest.importorskip("SimpleITK")
    for extension in ("tfm", "mat", "h5"):
        sitk.WriteTransform(itk_transforms(sitk)["affine"], str(tmp_path / f"t.{extension}"))
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    read_linear(tmp_path / "t.tfm", FIXED, MOVING)
    read_linear(tmp_path / "t.mat", FIXED, MOVING)
    with pytest.raises(InputError, match=r"pip install 'lganet_fast\[itk\]'"):
        read_linear(tmp_path / "t.h5", FIXED, MOVING)


@pytest.mark.parametrize("fixed", [FIXED, LEFT_HANDED])
def test_reads_flirts_matrix(tmp_path, fixed):
    """A voxel's place for FLIRT: mm along the axes, x from the last voxel if right-handed."""

    def place(grid, index):
        index = index.copy()
        if np.linalg.det(grid.affine[:3, :3]) > 0:
            index[:, 0] = grid.shape[0] - 1 - index[:, 0]
        return index * grid.spacing

    source, target = (
        place(MOVING, MOVING.to_index(moved(a_map()))),
        place(fixed, fixed.to_index(POINTS)),
    )
    ones = np.ones((len(POINTS), 1))
    flirt = np.linalg.lstsq(np.hstack([source, ones]), np.hstack([target, ones]), rcond=None)[0].T
    flirt[3] = 0, 0, 0, 1
    np.savetxt(tmp_path / "t.mat", flirt, fmt="%.12f")
    found = read_linear(tmp_path / "t.mat", fixed, MOVING)
    np.testing.assert_allclose(found, a_map(), atol=1e-6)


@pytest.mark.parametrize("tool", ["fsl", "fs", "itk"])
def test_reads_what_nitransforms_writes(tmp_path, tool):
    linear = pytest.importorskip("nitransforms.linear")
    nib = pytest.importorskip("nibabel")
    images = [nib.Nifti1Image(np.zeros(g.shape, np.uint8), g.affine) for g in (FIXED, MOVING)]
    transform = linear.Affine(a_map(), reference=images[0])
    path = tmp_path / {"fsl": "t.mat", "fs": "t.lta", "itk": "t.tfm"}[tool]
    transform.to_filename(path, fmt=tool, moving=images[1])
    found = read_linear(path, FIXED, MOVING)
    np.testing.assert_allclose(moved(found), moved(a_map()), atol=1e-3)


LTA = """# made by hand
type      = {kind}
nxforms   = 1
mean      = 0 0 0
sigma     = 1
1 4 4
{rows}
src volume info
{moving}
dst volume info
{fixed}
subject x
"""


def volume_info(grid):
    centre = grid.to_world(np.array(grid.shape) / 2)
    axes = grid.affine[:3, :3] / grid.spacing
    lines = [
        "valid = 1  # volume info valid",
        "filename = a.nii",
        f"volume = {' '.join(map(str, grid.shape))}",
        f"voxelsize = {' '.join(map(repr, grid.spacing.tolist()))}",
        *(f"{n}ras = {' '.join(map(repr, axes[:, i].tolist()))}" for i, n in enumerate("xyz")),
        f"cras = {' '.join(map(repr, centre.tolist()))}",
    ]
    return "\n".join(lines)


@pytest.mark.parametrize("kind", [0, 1])
def test_reads_freesurfers_matrix(tmp_path, kind):
    back = np.linalg.inv(a_map())
    matrix = np.linalg.inv(FIXED.affine) @ back @ MOVING.affine if kind == 0 else back
    rows = "\n".join(" ".join(map(repr, row)) for row in matrix.tolist())
    text = LTA.format(kind=kind, rows=rows, fixed=volume_info(FIXED), moving=volume_info(MOVING))
    (tmp_path / "t.lta").write_text(text)
    np.testing.assert_allclose(read_linear(tmp_path / "t.lta", FIXED, MOVING), a_map(), atol=1e-9)


def test_freesurfers_volumes_the_wrong_way_round(tmp_path, recwarn):
    rows = "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1"
    text = LTA.format(kind=1, rows=rows, fixed=volume_info(FIXED), moving=volume_info(MOVING))
    (tmp_path / "t.lta").write_text(text)
    read_linear(tmp_path / "t.lta", FIXED, MOVING)
    assert not recwarn
    with pytest.warns(InputWarning, match="t.lta: its src is the fixed image"):
        read_linear(tmp_path / "t.lta", MOVING, FIXED)


def test_reads_four_lines_of_numbers(tmp_path):
    np.savetxt(tmp_path / "t.txt", a_map(), header="fixed to moving")
    np.savetxt(tmp_path / "t.csv", a_map(), delimiter=",")
    for name in ("t.txt", "t.csv"):
        np.testing.assert_allclose(read_linear(tmp_path / name, FIXED, MOVING), a_map())
    marked = (tmp_path / "t.csv").read_text()
    (tmp_path / "t.csv").write_text(marked, encoding="utf-8-sig")
    np.testing.assert_allclose(read_linear(tmp_path / "t.csv", FIXED, MOVING), a_map())


def damaged():
    rows = "1 0 0 0\n0 1 0 0\n0 0 1 0\n"
    head = "#Insight Transform File V1.0\n"
    itk = head + "#Transform 0\nTransform: {}\nParameters: {}\nFixedParameters: 0 0 0\n"
    return {
        "missing": (None, "does not exist"),
        "empty.txt": ("", "not 4 lines of 4 numbers"),
        "three.txt": (rows, "not 4 lines of 4 numbers"),
        "words.txt": (rows + "0 0 0 one\n", "could not convert"),
        "nan.txt": (rows + "0 0 0 nan\n", "not finite"),
        "last.txt": (rows + "0 0 1 1\n", "last row"),
        "flat.txt": (rows.replace("0 1 0 0", "0 0 0 0") + "0 0 0 1\n", "singular"),
        "few.tfm": (itk.format("AffineTransform_double_3_3", "1 0 0"), "3 parameters, not 12"),
        "flat.tfm": (itk.format("AffineTransform_double_2_2", "1 0 0 1 0 0"), "not 3-D"),
        "other.tfm": (itk.format("BSplineTransform_double_3_3", "1 0 0"), "none of"),
        "none.tfm": (head, "holds no transform"),
        "long.tfm": (head + "#\n" * (1 << 19), "larger than a linear transform"),
        "versor.tfm": (
            itk.format("VersorRigid3DTransform_double_3_3", "0.6 0.6 0.6 0 0 0"),
            "versor has length 1.03923, must be at most 1",
        ),
        "two.lta": (
            LTA.format(kind=1, rows=rows + "0 0 0 1", fixed="", moving="").replace(
                "= 1\nmean", "= 2\nmean"
            ),
            "2 transforms, one is needed",
        ),
        "invalid.lta": (
            LTA.format(
                kind=0,
                rows=rows + "0 0 0 1",
                fixed=volume_info(FIXED).replace("valid = 1", "valid = 0"),
                moving=volume_info(MOVING),
            ),
            "does not describe its src and dst",
        ),
        "kind.lta": (
            LTA.format(kind=14, rows=rows + "0 0 0 1", fixed="", moving=""),
            r"type must be 0 \(voxels\) or 1 \(world\), got 14",
        ),
        "bare.lta": (
            LTA.format(kind=0, rows=rows + "0 0 0 1", fixed="", moving=""),
            "does not describe its src and dst",
        ),
    }


@pytest.mark.parametrize("name", damaged())
def test_one_line_says_what_is_wrong(tmp_path, name):
    text, message = damaged()[name]
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_linear(tmp_path / name, FIXED, MOVING)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_binary_file_that_is_no_transform(tmp_path):
    savemat(tmp_path / "t.mat", {"a": np.eye(3), "fixed": np.zeros(3)}, format="4")
    with pytest.raises(InputError, match="none of"):
        read_linear(tmp_path / "t.mat", FIXED, MOVING)
    for name, content in {"t.nii.gz": b"\x1f\x8b\x08" + b"\xff" * 400, "t.raw": bytes(19)}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="neither text nor an ITK transform"):
            read_linear(tmp_path / name, FIXED, MOVING)
    whole = (tmp_path / "t.mat").read_bytes()
    (tmp_path / "t.mat").write_bytes(whole[:60])
    with pytest.raises(InputError, match="cannot be read"):
        read_linear(tmp_path / "t.mat", FIXED, MOVING)


def test_a_field_is_no_linear_map(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    field = sitk.DisplacementFieldTransform(sitk.Image((4, 4, 4), sitk.sitkVectorFloat64))
    sitk.WriteTransform(sitk.CompositeTransform([field]), str(tmp_path / "t.h5"))
    with pytest.raises(InputError, match="is not linear"):
        read_linear(tmp_path / "t.h5", FIXED, MOVING)
