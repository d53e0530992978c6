"""Images in damaged files, or whose headers claim what is not there: one line, and no memory."""

from __future__ import annotations

import gzip
import struct
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from synthetic import oblique_grid

from lganet_fast.errors import InputError
from lganet_fast.volumes import nifti

GRID = oblique_grid((7, 6, 5), (1.0, 0.8, 2.5), 25)


@pytest.fixture
def data():
    return np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)


def save(path, array, affine=GRID.affine, image=nib.Nifti1Image):
    nib.save(image(array, affine), path)
    return path


def damaged(whole, place, value):
    return whole[:place] + value + whole[place + len(value) :]


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("name", ["a.nii.gz", "a.mgz"])
def test_every_flipped_bit_of_a_packed_file_is_noticed(tmp_path, name):
    array = np.random.default_rng(0).integers(0, 50, (8, 8, 8)).astype(np.int16)
    kind = nib.MGHImage if name.endswith("mgz") else nib.Nifti1Image
    path = save(tmp_path / name, array, image=kind)
    whole, grid = path.read_bytes(), nifti.load_grid(path, "fixed")
    for place in range(0, len(whole), 5):
        flipped = whole[place] ^ 1 << place % 8
        path.write_bytes(damaged(whole, place, bytes([flipped])))
        try:
            found = nifti.load_image(path, "fixed")
        except InputError:
            continue
        np.testing.assert_array_equal(found.data, array)  # a bit of gzip's own header
        assert nifti.load_grid(path, "reference").matches(grid)


def test_packed_files_are_read_to_their_end(tmp_path, data):
    path = save(tmp_path / "a.nii.gz", data)
    whole = path.read_bytes()
    for wrong in (whole + b"junk", whole[:-1], whole[:-8], whole + whole[:-1]):
        path.write_bytes(wrong)
        for read in (nifti.load_image, nifti.load_grid):
            with pytest.raises(InputError, match="cannot be read"):
                read(path, "fixed")
    cut = len(whole) // 2
    plain = gzip.decompress(whole)
    path.write_bytes(gzip.compress(plain[:cut]) + gzip.compress(plain[cut:]))
    np.testing.assert_array_equal(nifti.load_image(path, "fixed").data, data)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("a.nii", 42, struct.pack("<h", -1)),
        ("a.nii", 40, struct.pack("<8h", 7, *[32767] * 7)),
        ("a.nii", 70, struct.pack("<h", 9999)),
        ("a.nii", 108, struct.pack("<f", np.inf)),
        ("a.nii", 108, struct.pack("<f", -np.inf)),
        ("a.nii", 108, struct.pack("<f", np.nan)),
        ("a.nii", 108, struct.pack("<f", 3.4e38)),
        ("a.mgz", 4, struct.pack(">i", 0)),
        ("a.mgz", 4, struct.pack(">i", -(2**31))),
        ("a.mgz", 20, struct.pack(">i", 5)),
    ],
)
def test_an_odd_header_is_one_line(tmp_path, data, name, place, value):
    kind = nib.MGHImage if name.endswith("mgz") else nib.Nifti1Image
    path = save(tmp_path / name, data, image=kind)
    whole = path.read_bytes()
    if name.endswith("mgz"):
        whole = gzip.compress(damaged(gzip.decompress(whole), place, value))
    path.write_bytes(whole if name.endswith("mgz") else damaged(whole, place, value))
    for read in (nifti.load_image, nifti.load_labels):
        with pytest.raises(InputError) as caught:
            read(path, "fixed")
        assert str(caught.value).startswith(f"fixed {path}")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_no_memory_is_taken_for_what_a_header_only_claims(tmp_path, name):
    path = save(tmp_path / "a.nii", np.ones((8, 8, 8), np.int16))
    whole = damaged(path.read_bytes(), 40, struct.pack("<4h", 3, 3000, 3000, 3000))
    (tmp_path / name).write_bytes(gzip.compress(whole) if name.endswith("gz") else whole)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="its header promises 54000000352"):
            nifti.load_image(tmp_path / name, "fixed")
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_a_message_is_one_printable_line(tmp_path):
    path = tmp_path / ("\x1b[31m\n" + "long" * 40)
    path.mkdir()
    with pytest.raises(InputError) as caught:
        nifti.load_image(path / ("name" * 40), "fixed")
    message = str(caught.value)
    assert len(message) <= 300
    assert message.isprintable()
    assert message.startswith("fixed ")
    assert message.endswith("does not exist")
