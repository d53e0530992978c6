"""The README tells the truth: its code runs, its commands parse, its files exist."""

import re
import shlex
from pathlib import Path

import nibabel as nib
import pytest
from synthetic import synthetic_pair

from lganet_fast.cli import build_parser

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
