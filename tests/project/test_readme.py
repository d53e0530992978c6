"""README and docs tell the truth: their code runs, their commands parse, their files exist."""

import re
import shlex
from pathlib import Path

import nibabel as nib
import pytest
from synthetic import synthetic_pair

from lganet_fast.cli import action_of, build_parser
from lganet_fast.volumes.nifti import save_volume

NOT_RUN = ("demo", "doctor", "data", "train", "evaluate", "reproduce")
ROOT = Path(__file__).parents[2]
LANGUAGES = ("python", "sh", "console", "toml", "cpp")
ABOVE = (ROOT / "README.md", ROOT / "CONTRIBUTING.md")
PAGES = {p.name: p for p in (*ABOVE, *sorted((ROOT / "docs").glob("*.md")))}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}
README = TEXTS["README.md"]


def blocks(language, text=README):
    """The code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def command_lines(text=README):
    return [line for block in blocks("sh", text) for line in block.splitlines() if line.strip()]


def test_every_block_says_its_language():
    """Those of an unknown one would go unread; "console" is for what needs more than is here."""
    for name, text in TEXTS.items():
        assert set(re.findall(r"^```(\S*)\n", text, re.MULTILINE)) <= {*LANGUAGES, ""}, name
        closed = text.count("```") == 2 * len(re.findall(r"^```\w", text, re.MULTILINE))
        assert closed, name


@pytest.mark.parametrize("page", [name for name, text in TEXTS.items() if blocks("python", text)])
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pair = synthetic_pair()
    for name in ("fixed", "moving"):
        volume = getattr(pair, name)
        nib.save(nib.Nifti1Image(volume.data, volume.grid.affine), f"{name}.nii.gz")
    for block in blocks("python", TEXTS[page]):
        exec(compile(block, page, "exec"), {})


def test_every_command_line_parses():
    commands = [
        shlex.split(line)
        for text in TEXTS.values()
        for line in command_lines(text)
        if line.startswith("lganet-fast") and "--help" not in line
    ]
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
        action_of(arguments)(arguments)
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
    for name, text in TEXTS.items():
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)]+)\)", prose):
            assert (PAGES[name].parent / target).exists(), f"{name}: {target}"
