"""Rooms import only from those below them, no modules import each other, moved names still work."""

from __future__ import annotations

import importlib
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

from lganet_fast import lazy

ROOT = Path(__file__).parents[2]
LONGEST = 400  # lines of a file
WERE = {  # public names, and the modules that had them at first
    "transform": ["DisplacementField"],
    "formats": ["FORMATS", "recognise", "format_of"],
    "grid": ["Grid", "Volume", "as_points"],
    "io": ["load_image", "load_labels", "load_mask", "load_grid", "save_volume", "open_image"],
    "points": ["PointTable", "read_table", "UNITS"],
    "jacobian": ["jacobian_determinant"],
    "inverse": ["Inverter"],
    "resample": ["pull"],
    "sampling": ["sample", "sample_labels"],
    "surfaces": ["hd95"],
    "metrics": ["dice", "hd95", "overlap", "sdlogj", "tre", "folded_percent"],
    "losses": ["lncc_loss", "mse_loss", "mind_ssc", "dice_loss", "SIMILARITIES"],
    "registration": ["register", "Registration", "RegistrationWarning"],
    "settings": ["Settings"],
    "cohort": ["register_pairs"],
    "config": ["load", "dumps", "shipped", "Config"],
    "runtime": ["choose_device", "set_threads", "versions"],
    "files": ["atomic", "staged_folder"],
    "optimize": ["optimise"],
    "demo": ["run_demo"],
    "qc": ["qc_page"],
    "fieldfiles": ["read_itk"],
}


def test_rooms_import_in_order():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_no_modules_import_each_other():
    graph = grimp.build_graph("lganet_fast", cache_dir=None)
    parts = {m: graph.find_modules_directly_imported_by(m) for m in graph.modules}
    assert list(TopologicalSorter(parts).static_order())


@pytest.mark.parametrize("module", WERE)
def test_names_are_found_where_they_were(module):
    there = importlib.import_module(f"lganet_fast.{module}")
    for name in WERE[module]:
        assert getattr(there, name) is not None


def test_a_moved_module_is_the_same_module():
    for old, new in lazy.MOVED.items():
        one, other = (importlib.import_module(f"lganet_fast.{name}") for name in (old, new))
        assert one is other
        assert one.__spec__.name == f"lganet_fast.{new}"


def test_every_room_says_what_is_in_it():
    for room in (ROOT / "lganet_fast").iterdir():
        if (room / "__init__.py").exists():
            assert importlib.import_module(f"lganet_fast.{room.name}").__doc__.count("\n") <= 6


def test_no_file_is_long():
    kinds = ("py", "cpp", "cu", "h", "cuh", "inl")
    folders = ("lganet_fast", "kernels", "csrc", "build_support", "benchmarks", "tests")
    found = [p for f in folders for kind in kinds for p in (ROOT / f).rglob(f"*.{kind}")]
    lines = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in found}
    assert {p.name: n for p, n in lines.items() if n > LONGEST} == {}
