"""The README tells the truth: its code runs, its commands parse, its files exist."""

import re
import shlex
from pathlib import Path

import nibabel as nib
import pytest
from synthetic import synthetic_pair

from lganet_fast.cli import build_parser
from lganet_fast.io import save_volume

NOT_RUN = ("demo", "doctor", "data", "train", "evaluate")
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    """The code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def command_lines():
    return [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pair = synthetic_pair()
    for name in ("fixed", "moving"):
        volume = getattr(pair, name)
        nib.save(nib.Nifti1Image(volume.data, volume.grid.affine), f"{name}.nii.gz")
    assert blocks("python")
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert Path("warp.nii.gz").exists()


def test_every_command_line_parses():
    commands = [shlex.split(line) for line in command_lines() if line.startswith("lganet-fast")]
    assert len(commands) >= 5
    for words in commands:
        build_parser().parse_args(words[1:])


def test_commands_run_one_after_the_other(tmp_path, monkeypatch):
    """The first registration, then what is done with its results."""
    pytest.importorskip("SimpleITK")
    monkeypatch.chdir(tmp_path)
    pair = synthetic_pair()
    for path, volume in (
        ("fixed.nii.gz", pair.fixed),
        ("moving.nii.gz", pair.moving),
        ("labels.nii.gz", pair.moving_labels),
    ):
        save_volume(path, volume.data, volume.grid)
    Path("moving.csv").write_text("x,y,z\n1,2,3\n-4,5,6\n")
    ran = []
    for line in command_lines():
        words = shlex.split(line)
        if words[0] != "lganet-fast" or words[1] in NOT_RUN or "S02" in words:
            continue
        arguments = build_parser().parse_args(words[1:])
        if words[1] == "register":
            arguments.iterations = (5, 2)
        arguments.run(arguments)
        ran.append(words[1])
    assert set(ran) == {"register", "apply", "convert", "metrics"}


def test_set_up_commands_name_extras_that_exist():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(re.findall(r"'\.\[(\w+)\]'", README))
    assert extras
    assert extras <= set(project["optional-dependencies"])
    assert "pytest" in command_lines()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target
