"""Every reader, with whole files for it, made by the package's own writers and by others'."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from scipy.io import savemat

from lganet_fast import LGANetPlusPlus, config
from lganet_fast.data.pickles import read_arrays
from lganet_fast.errors import InputError
from lganet_fast.evaluation.results import Store
from lganet_fast.models import checkpoint
from lganet_fast.runtime.csv_files import read_rows
from lganet_fast.training import state
from lganet_fast.transforms.field import DisplacementField
from lganet_fast.transforms.linear_files import read_linear
from lganet_fast.volumes import nifti
from lganet_fast.volumes.grid import Grid
from lganet_fast.volumes.itk import import_simpleitk
from lganet_fast.volumes.pair_table import read_pair_table
from lganet_fast.volumes.points import read_table
from lganet_fast.volumes.series import load_series

SHAPE = (9, 8, 7)
GRID = Grid(SHAPE, np.array([[0, -1.5, 0, 9], [2, 0, 0, -7], [0, 0, 1, 3], [0, 0, 0, 1.0]]))


@dataclass(frozen=True)
class Reader:
    """read: from a path to arrays and text. sealed: the format has checksums, so that no change of
    what is read may go unnoticed. rate: how often it is tried, relative to the others.
    """

    name: str
    content: bytes
    read: Callable[[Path], Any]
    sealed: bool = False
    rate: float = 1.0


def image(path: Path) -> Any:
    volume = nifti.load_image(path, "fixed")
    return volume.data, volume.grid.affine


def labels(path: Path) -> Any:
    return nifti.load_labels(path, "labels").data


def grid(path: Path) -> Any:
    found = nifti.load_grid(path, "reference")
    return found.affine, np.array(found.shape)


def series(path: Path) -> Any:
    return load_series(path, "image").data


def field(path: Path) -> Any:
    found = DisplacementField.load(path, None if path.suffix != ".npy" else "itk")
    return found.displacement, found.grid.affine


def voxel_field(path: Path) -> Any:
    return DisplacementField.load(path, "learn2reg", GRID, GRID).displacement


def linear_map(path: Path) -> Any:
    return read_linear(path, GRID, GRID)


def points(path: Path) -> Any:
    table = read_table(path)
    return table.points, str(table.rows)


def network(path: Path) -> Any:
    found = checkpoint.load(path)
    return [p.detach().numpy() for p in found.model.parameters()], str(asdict(found.card))


def cached_case(path: Path) -> Any:
    store = Store(path.parent, {"a": 1}, (["case", "dice"], ["label"]))
    store.folder = path.parent
    found = store.get(path.stem)
    if found is None:
        raise InputError("not there")
    return str(found)


def linear_files() -> Iterator[tuple[str, bytes]]:
    """A linear transform of each kind of file."""
    rows = "1 0.1 0 5\n0 1 0 6\n0.2 0 1 7\n0 0 0 1\n"
    itk = "#Insight Transform File V1.0\n#Transform 0\nTransform: {}_double_3_3\n"
    euler = itk.format("Euler3DTransform")
    euler += "Parameters: 0.1 0.2 0.3 4 5 6\nFixedParameters: 1 2 3\n"
    info = "volume = 9 8 7\nvoxelsize = 1 2 1\nxras = -1 0 0\nyras = 0 0 -1\n"
    info += "zras = 0 1 0\ncras = 0 0 0\n"
    lta = f"type = 0\nnxforms = 1\n1 4 4\n{rows}src volume info\n{info}dst volume info\n{info}"
    yield from (("t.txt", rows.encode()), ("t.mat", rows.encode()))
    yield from (("t.tfm", euler.encode()), ("t.lta", lta.encode()))
    matlab = io.BytesIO()
    own = {"AffineTransform_double_3_3": np.arange(12.0) % 5, "fixed": np.ones(3)}
    savemat(matlab, own, format="4")
    yield "b.mat", matlab.getvalue()


def readers(folder: Path) -> Iterator[Reader]:  # noqa: PLR0915
    """All of them; `folder` is for the whole files."""
    random = np.random.default_rng(0)
    floats = random.normal(size=SHAPE).astype(np.float32)
    whole = random.integers(0, 5, SHAPE).astype(np.int16)

    def made(name: str, write: Callable[[Path], Any]) -> bytes:
        write(folder / name)
        return (folder / name).read_bytes()

    for name in ("a.nii", "a.nii.gz"):
        sealed = name.endswith("gz")
        content = made(name, lambda path: nifti.save_volume(path, floats, GRID))
        yield Reader(name, content, image, sealed, 2)
        yield Reader(name, content, grid, sealed)
        content = made(name, lambda path: nifti.save_volume(path, whole, GRID))
        yield Reader(name, content, labels, sealed)
    scaled = nib.Nifti1Image(floats, GRID.affine)
    scaled.set_data_dtype(np.int16)
    yield Reader("s.nii", made("s.nii", lambda path: nib.save(scaled, path)), image)
    many = np.stack([floats] * 3, -1)
    content = made("t.nii.gz", lambda path: nifti.save_volume(path, many, GRID, 2.0, "sec"))
    yield Reader("t.nii.gz", content, series, True)
    for name in ("a.mgh", "a.mgz"):
        mgh = nib.MGHImage(floats, GRID.affine)
        content = made(name, lambda path, mgh=mgh: nib.save(mgh, path))
        yield Reader(name, content, image, name == "a.mgz")

    shift = random.normal(size=(*SHAPE, 3)).astype(np.float32)
    moved = DisplacementField(shift, GRID)
    for name in ("w.nii", "w.nii.gz"):
        content = made(name, moved.save)
        yield Reader(name, content, field, name.endswith("gz"))
    content = made("w.npz", lambda path: moved.save(path, "npz", GRID))
    yield Reader("w.npz", content, field, True)
    content = made("l.npz", lambda path: moved.save(path, "learn2reg", GRID))
    yield Reader("l.npz", content, voxel_field, True)
    try:
        import_simpleitk("fuzzing")
    except InputError:
        pass
    else:
        yield Reader("w.h5", made("w.h5", moved.save), field, rate=0.2)
        for name in ("i.nrrd", "i.mha"):
            content = made(name, lambda path: nifti.save_volume(path, floats, GRID))
            yield Reader(name, content, image, rate=0.5)

    for name, content in linear_files():
        yield Reader(name, content, linear_map, rate=0.5)
    for protocol in (3, 5):
        yield Reader("a.pkl", pickle.dumps((floats, whole), protocol), read_arrays)
    yield Reader("p.csv", b"x,y,z,label\n1,2,3,a\n4.5,-6,7e1,b\n", points, rate=0.5)
    fcsv = b"# CoordinateSystem = LPS\n# columns = id,x,y,z,label\n1,2,3,4,a\n2,5,6,7,b\n"
    yield Reader("p.fcsv", fcsv, points, rate=0.5)
    own = {"coordinateSystem": "RAS", "controlPoints": [{"label": "a", "position": [1, 2, 3.5]}]}
    yield Reader("p.mrk.json", json.dumps({"markups": [own]}).encode(), points, rate=0.5)
    yield Reader("r.csv", b"case,dice\na,0.5\nb,0.25\n", lambda p: str(read_rows(p, ("case",))))
    yield Reader(
        "q.csv", b"fixed,moving,split\na.nii,b.nii,train\n", lambda p: str(read_pair_table(p))
    )
    text = config.dumps(config.load("lpba40", ["data.root=/data"])).encode()
    yield Reader("c.toml", text, lambda p: str(config.load(p)))
    case = {
        "settings": {"a": 1},
        "files": [],
        "case": {"case": "c", "dice": 0.5},
        "labels": [{"label": 1}],
    }
    yield Reader("c.json", json.dumps(case).encode(), cached_case, rate=0.5)

    torch.manual_seed(0)
    small = LGANetPlusPlus((48, 48, 48), lgam=False, fifm=False, msfm=False)
    content = made("n.safetensors", lambda path: checkpoint.save(small, path))
    yield Reader("n.safetensors", content, network, rate=0.1)
    first = {"encoder.conv0.0.weight": torch.ones(8, 1, 3, 3, 3)}
    yield Reader("n.pt", made("n.pt", lambda path: torch.save(first, path)), network, rate=0.5)
    run = {"step": 3, "best": 0.5, "network": first}
    content = made("last.pt", lambda path: state.save(path, run))
    yield Reader("last.pt", content, lambda p: str(state.load(p)), True, 0.5)
