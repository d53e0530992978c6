"""Files of other tools: round trips, what other readers see, and what is refused."""

from __future__ import annotations

import io
import os
import zipfile

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import zoom
from synthetic import oblique_grid, wave

from lganet_fast.errors import InputError
from lganet_fast.transforms.field import DisplacementField
from lganet_fast.transforms.formats import FORMATS, VECTOR, recognise
from lganet_fast.volumes.grid import Grid

FIXED = oblique_grid((14, 12, 10), (1.9, 1.5, 3.1), 20)
MOVING = oblique_grid((15, 11, 13), (1.4, 2.2, 1.7), -35)
FLIP = np.array([-1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def field():
    displacement = wave(FIXED.world(), 4.0) + np.array([3.0, -2.0, 1.0])
    return DisplacementField(displacement.astype(np.float32), FIXED)


ROUND_TRIPS = [
    ("itk", "w.nii", 1e-5),
    ("itk", "w.nii.gz", 1e-5),
    ("slicer", "w.nii.gz", 1e-5),
    ("h5", "w.h5", 1e-5),
    ("learn2reg", "disp.npz", 1e-5),
    ("learn2reg", "disp.nii.gz", 1e-5),
    ("npz", "w.npz", 1e-5),
    ("learn2reg2021", "disp.npz", 0.3),  # half the resolution and half-precision numbers
]


@pytest.mark.parametrize(("name", "file", "error"), ROUND_TRIPS)
def test_round_trip(tmp_path, field, name, file, error):
    path = tmp_path / file
    field.save(path, name, moving=MOVING)
    bare = file == "disp.nii.gz"
    if not bare:
        assert recognise(path) == name
    grids = (FIXED, MOVING) if name.startswith("learn2reg") else ()
    back = DisplacementField.load(path, name if bare else None, *grids)
    assert back.grid.matches(FIXED)
    gap = np.abs(back.displacement - field.displacement)
    assert (gap.mean() if name == "learn2reg2021" else gap.max()) < error
    assert os.listdir(tmp_path) == [file]


# Not of HDF5: its object headers hold the second in which they were written.
@pytest.mark.parametrize(("name", "file", "error"), [x for x in ROUND_TRIPS if x[0] != "h5"])
def test_bytes_repeat(tmp_path, field, name, file, error, monkeypatch):
    field.save(tmp_path / file, name, moving=MOVING)
    first = (tmp_path / file).read_bytes()
    monkeypatch.setattr("time.time", lambda: 2e9)
    field.save(tmp_path / f"other-{file}", name, moving=MOVING)
    assert (tmp_path / f"other-{file}").read_bytes() == first


def test_itk_header(tmp_path, field):
    field.save(tmp_path / "w.nii.gz")
    image = nib.load(tmp_path / "w.nii.gz")
    header = image.header
    np.testing.assert_array_equal(header["dim"], [5, *FIXED.shape, 1, 3, 1, 1])
    assert int(header["intent_code"]) == 1007
    assert header.get_data_dtype() == np.float32
    assert header.get_xyzt_units()[0] == "mm"
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 1)
    np.testing.assert_allclose(image.get_qform(), FIXED.affine, atol=1e-4)
    expected = field.displacement * FLIP
    np.testing.assert_allclose(np.asanyarray(image.dataobj)[:, :, :, 0], expected, atol=1e-6)


def test_slicer_is_what_itk_reads(tmp_path, field):
    sitk = pytest.importorskip("SimpleITK")

    field.save(tmp_path / "w.nii.gz", "slicer")
    header = nib.load(tmp_path / "w.nii.gz").header
    assert int(header["intent_code"]) == 1006
    image = sitk.ReadImage(str(tmp_path / "w.nii.gz"))
    found = sitk.GetArrayFromImage(image).transpose(2, 1, 0, 3)
    np.testing.assert_allclose(found, field.displacement * FLIP, atol=1e-5)


def test_composite_is_what_other_tools_read(tmp_path, field):
    sitk = pytest.importorskip("SimpleITK")
    from nitransforms.manip import load as load_chain

    path = tmp_path / "w.h5"
    field.save(path)
    points = FIXED.world()[1:-1:3, 1:-1:3, 1:-1:3].reshape(-1, 3)
    transform = sitk.ReadTransform(str(path))
    assert transform.GetName() == "CompositeTransform"
    theirs = np.array([transform.TransformPoint(p) for p in (points * FLIP).tolist()])
    np.testing.assert_allclose(theirs * FLIP, field.map(points), atol=1e-4)
    chain = load_chain(path, fmt="itk")
    np.testing.assert_allclose(chain.map(points), field.map(points), atol=1e-3)


@pytest.mark.parametrize("field_first", [True, False])
def test_composite_of_affine_and_field(tmp_path, field, field_first):
    sitk = pytest.importorskip("SimpleITK")

    field.save(tmp_path / "w.h5")
    warp = sitk.CompositeTransform(sitk.ReadTransform(str(tmp_path / "w.h5"))).GetNthTransform(0)
    turn = sitk.Euler3DTransform((0, 0, 0), 0.1, -0.2, 0.05, (4, 5, -6))
    parts = [turn, warp] if field_first else [warp, turn]  # the last added is applied first
    composite = sitk.CompositeTransform(parts)
    sitk.WriteTransform(composite, str(tmp_path / "both.h5"))
    back = DisplacementField.load(tmp_path / "both.h5")
    assert back.grid.matches(FIXED)
    points = FIXED.world()[2:-2, 2:-2, 2:-2]
    theirs = [composite.TransformPoint(p) for p in (points * FLIP).reshape(-1, 3).tolist()]
    np.testing.assert_allclose(
        points + back.displacement[2:-2, 2:-2, 2:-2],
        (np.array(theirs) * FLIP).reshape(points.shape),
        atol=1e-3,
    )


def test_affine_alone_needs_a_grid(tmp_path):
    sitk = pytest.importorskip("SimpleITK")

    shift = sitk.TranslationTransform(3, (1.0, 2.0, 3.0))
    sitk.WriteTransform(sitk.CompositeTransform([shift]), str(tmp_path / "a.h5"))
    with pytest.raises(InputError, match="give the fixed image"):
        DisplacementField.load(tmp_path / "a.h5")
    back = DisplacementField.load(tmp_path / "a.h5", fixed=FIXED)
    np.testing.assert_allclose(back.displacement, np.broadcast_to([-1, -2, 3], (*FIXED.shape, 3)))


def test_without_simpleitk(tmp_path, field, monkeypatch):
    field.save(tmp_path / "w.h5")
    monkeypatch.setitem(__import__("sys").modules, "SimpleITK", None)
    for call in (
        lambda: DisplacementField.load(tmp_path / "w.h5"),
        lambda: field.save(tmp_path / "x.h5"),
    ):
        with pytest.raises(InputError, match=r"pip install 'lganet_fast\[itk\]'"):
            call()


def test_hdf5_prints_nothing(tmp_path, field, capfd):
    (tmp_path / "bad.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(InputError, match="damaged, or not a 3-D ITK transform"):
        DisplacementField.load(tmp_path / "bad.h5")
    with pytest.raises(InputError, match=r"cannot write .*x\.h5: No such file or directory"):
        field.save(tmp_path / "none" / "x.h5")
    assert capfd.readouterr().err == ""


def test_composite_on_a_full_disk(tmp_path, field, monkeypatch):
    sitk = pytest.importorskip("SimpleITK")

    def fail(transform, path):
        raise RuntimeError("ITK ERROR: H5Dwrite failed")

    monkeypatch.setattr(sitk, "WriteTransform", fail)
    with pytest.raises(InputError, match=r"cannot write .*x\.h5: ITK failed"):
        field.save(tmp_path / "x.h5")
    assert os.listdir(tmp_path) == []


def test_learn2reg_warps_by_voxels(tmp_path, field):
    field.save(tmp_path / "d.npz", "learn2reg", MOVING)
    flow = np.load(tmp_path / "d.npz")["arr_0"]
    assert (flow.shape, flow.dtype) == ((*FIXED.shape, 3), np.float32)
    p = np.array([3, 7, 5])
    world = field.map(FIXED.to_world(p))
    np.testing.assert_allclose(MOVING.to_world(p + flow[tuple(p)]), world, atol=1e-4)


def test_learn2reg2021_is_zoomed_as_theirs(tmp_path, field):
    field.save(tmp_path / "d.npz", "learn2reg2021", MOVING)
    stored = np.load(tmp_path / "d.npz")["arr_0"]
    assert (stored.shape, stored.dtype) == ((3, 7, 6, 5), np.float16)
    flow = field.voxels(MOVING)
    theirs = np.stack([zoom(flow[..., i], 0.5, order=2) for i in range(3)]).astype(np.float16)
    np.testing.assert_array_equal(stored, theirs)
    full = np.stack([zoom(part, 2, order=2) for part in stored.astype(np.float32)], -1)
    back = DisplacementField.load(tmp_path / "d.npz", fixed=FIXED, moving=MOVING)
    np.testing.assert_allclose(back.voxels(MOVING), full, atol=1e-4)
    odd = Grid((13, 12, 10), FIXED.affine)
    cut = DisplacementField(np.ascontiguousarray(field.displacement[:13]), odd)
    with pytest.raises(InputError, match=r"even sizes, got \(13, 12, 10\)"):
        cut.save(tmp_path / "odd.npz", "learn2reg2021", MOVING)


def test_npz_describes_itself(tmp_path, field):
    field.save(tmp_path / "w.npz", "npz", MOVING)
    with np.load(tmp_path / "w.npz") as file:
        np.testing.assert_array_equal(file["fixed_affine"], FIXED.affine)
        np.testing.assert_array_equal(file["moving_affine"], MOVING.affine)
        assert tuple(file["moving_shape"]) == MOVING.shape
        assert "fixed" in str(file["about"])


def vectors(path, field, shape, intent=0, name=""):
    image = nib.Nifti1Image(field.displacement.reshape(shape), FIXED.affine)
    image.header.set_intent(intent, name=name)
    nib.save(image, path)
    return path


def test_refuses_fields_of_unknown_units(tmp_path, field):
    five, four = (*FIXED.shape, 1, 3), (*FIXED.shape, 3)
    bare = vectors(tmp_path / "a.nii", field, five)
    with pytest.raises(InputError, match=r"5-D .* intent code 0: .*itk \(LPS mm\) or slicer"):
        DisplacementField.load(bare)
    np.testing.assert_array_equal(
        DisplacementField.load(bare, "slicer").displacement, field.displacement
    )
    np.testing.assert_allclose(
        DisplacementField.load(bare, "itk").displacement, field.displacement * FLIP
    )
    stack = vectors(tmp_path / "b.nii", field, four)
    with pytest.raises(InputError, match=r"4-D array \(X, Y, Z, 3\) .*learn2reg \(voxels\), itk"):
        DisplacementField.load(stack)
    np.testing.assert_array_equal(
        DisplacementField.load(stack, "slicer").displacement, field.displacement
    )
    flow = DisplacementField.load(stack, "learn2reg", FIXED, MOVING).voxels(MOVING)
    np.testing.assert_allclose(flow, field.displacement, atol=1e-4)
    mapping = vectors(tmp_path / "y.nii", field, five, 1007, "Mapping")
    with pytest.raises(InputError, match="SPM deformation"):
        DisplacementField.load(mapping)


def test_refuses_files_that_are_no_field(tmp_path, field):
    def refused(path, message, *args):
        with pytest.raises(InputError, match=message) as caught:
            DisplacementField.load(path, *args)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "none.nii", "does not exist")
    image = tmp_path / "image.nii"
    nib.save(nib.Nifti1Image(np.zeros(FIXED.shape, np.float32), FIXED.affine), image)
    refused(image, "not a displacement field, X x Y x Z x 1 x 3")
    refused(image, "must have shape", "itk")
    nib.save(nib.MGHImage(np.zeros(FIXED.shape, np.float32), FIXED.affine), tmp_path / "i.mgz")
    refused(tmp_path / "i.mgz", "MGHImage, not a displacement field")
    (tmp_path / "text.h5").write_text("hello")
    refused(tmp_path / "text.h5", "cannot be read")
    (tmp_path / "bad.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    refused(tmp_path / "bad.h5", "cannot be read")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no more")
    refused(tmp_path / "bad.npz", "cannot be read")
    np.savez(tmp_path / "code.npz", np.array([{}], object))
    refused(tmp_path / "code.npz", "cannot be read")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    refused(tmp_path / "other.npz", r"kind of field: weights \(3,\)")
    refused(tmp_path / "other.npz", "lacks the arrays flow", "npz")
    refused(tmp_path / "other.npz", r"\(3, X/2, Y/2, Z/2\)", "learn2reg2021")
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    refused(tmp_path / "two.npz", "one array, got 2", "learn2reg", FIXED, MOVING)
    nan = field.displacement.copy()
    nan[0, 0, 0] = np.nan
    image = nib.Nifti1Image(nan[:, :, :, None], FIXED.affine)
    image.header.set_intent(VECTOR)
    nib.save(image, tmp_path / "nan.nii")
    refused(tmp_path / "nan.nii", "3 numbers that are NaN or infinite")


def test_voxel_formats_need_their_grids(tmp_path, field):
    for name in ("learn2reg", "learn2reg2021", "npz"):
        with pytest.raises(InputError, match="give the moving image"):
            field.save(tmp_path / "d.npz", name)
    field.save(tmp_path / "d.npz", "learn2reg", MOVING)
    for grids in ((), (FIXED,), (None, MOVING)):
        with pytest.raises(InputError, match="give the fixed and the moving image"):
            DisplacementField.load(tmp_path / "d.npz", None, *grids)
    with pytest.raises(InputError, match=r"shape \(14, 12, 10, 3\), .* needs \(15, 11, 13, 3\)"):
        DisplacementField.load(tmp_path / "d.npz", None, MOVING, MOVING)


def test_another_fixed_grid_is_refused(tmp_path, field):
    field.save(tmp_path / "w.nii")
    with pytest.raises(InputError, match="but the fixed image on 15 x 11 x 13"):
        DisplacementField.load(tmp_path / "w.nii", fixed=MOVING)


def test_names_and_extensions(tmp_path, field):
    with pytest.raises(InputError, match="format must be one of itk, slicer"):
        field.save(tmp_path / "w.nii", "fsl")
    with pytest.raises(InputError, match="several formats: name one of learn2reg"):
        field.save(tmp_path / "w.npz")
    with pytest.raises(InputError, match=r"must end in \.nii or \.nii\.gz"):
        field.save(tmp_path / "w.txt")
    for name, kind in FORMATS.items():
        wrong = ".h5" if ".h5" not in kind.extensions else ".npz"
        with pytest.raises(InputError, match="must end in"):
            field.save(tmp_path / f"w{wrong}", name, MOVING)
        with pytest.raises(InputError, match="cannot write"):
            field.save(tmp_path / "none" / f"w{kind.extensions[0]}", name, MOVING)
    assert os.listdir(tmp_path) == []


def test_load_is_read_field(tmp_path, field):
    field.save(tmp_path / "w.npz", "npz", MOVING)
    back = DisplacementField.load(tmp_path / "w.npz")
    np.testing.assert_allclose(back.displacement, field.displacement, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("fixed_shape", np.array([np.inf, 4, 4]), "must be 3 sizes"),
        ("fixed_shape", np.zeros((16, 16, 16, 3), int), "must be 3 sizes"),
        ("moving_shape", np.array([4, 4, -4]), "must be 3 sizes"),
        ("moving_shape", np.array(["a", "b", "c"]), "<U1 values, not real numbers"),
        ("flow", np.zeros((4, 4, 4, 3), "U3"), "<U3 values, not real numbers"),
        ("flow", np.zeros((4, 4, 4, 3), "M8[s]"), "datetime64"),
        ("flow", np.zeros((4, 4, 4, 3), "c8"), "complex64"),
        ("fixed_affine", np.zeros((2, 2), "m8[s]"), "timedelta64"),
    ],
)
def test_odd_arrays_in_an_npz_file(tmp_path, name, value, message):
    arrays = {f"{side}_affine": np.eye(4) for side in ("fixed", "moving")}
    arrays |= {f"{side}_shape": np.array([4, 4, 4]) for side in ("fixed", "moving")}
    arrays |= {"flow": np.zeros((4, 4, 4, 3), np.float32), name: value}
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError, match=message) as caught:
        DisplacementField.load(tmp_path / "x.npz")
    assert len(str(caught.value)) <= 300


def test_what_an_npz_member_claims_is_checked(tmp_path):
    path = tmp_path / "x.npz"
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f4", "fortran_order": False, "shape": (4000, 4000, 4000, 3)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("arr_0.npy", head.getvalue() + bytes(768))
    with pytest.raises(InputError, match="must have 768000000000 bytes, but has 768"):
        DisplacementField.load(path)
    np.savez_compressed(path, arr_0=np.ones((4, 4, 4, 3)))
    whole = path.read_bytes()
    for place, value in ((whole.index(b"PK\x01\x02") + 10, 99), (60, whole[60] ^ 1)):
        path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"x\.npz cannot be read"):
            DisplacementField.load(path, fixed=FIXED, moving=FIXED)


def test_an_itk_file_that_claims_a_huge_grid(tmp_path):
    h5py = pytest.importorskip("h5py")
    pytest.importorskip("SimpleITK")
    path = tmp_path / "x.h5"
    DisplacementField(np.zeros((*FIXED.shape, 3), np.float32), FIXED).save(path)
    for sizes in ([3000] * 3, [1e6, 8, 8], [-1, 8, 8], [np.nan] * 3):
        with h5py.File(path, "r+") as file:
            file["TransformGroup/1/TransformFixedParameters"][:3] = sizes
        with pytest.raises(InputError, match="damaged, or not a 3-D ITK transform"):
            DisplacementField.load(path)


def test_an_empty_field(tmp_path):
    image = nib.Nifti1Image(np.zeros((2, 2, 2, 1, 3), np.float32), np.eye(4))
    image.header.set_intent(VECTOR)
    nib.save(image, tmp_path / "x.nii")
    content = bytearray((tmp_path / "x.nii").read_bytes())
    content[42:44] = bytes(2)  # no voxel along the first axis
    (tmp_path / "x.nii").write_bytes(content)
    np.savez(tmp_path / "x.npz", np.zeros((3, 0, 4, 4)))
    for name, kind in (("x.nii", None), ("x.nii", "slicer"), ("x.npz", "learn2reg2021")):
        with pytest.raises(InputError, match=r"must have shape|is empty"):
            DisplacementField.load(tmp_path / name, kind, FIXED, MOVING)
