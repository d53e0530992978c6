"""What wraps the package: one version everywhere, every dependency, no file that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lganet_fast
from lganet_fast import __version__

yaml = pytest.importorskip("yaml")
tomllib = pytest.importorskip("tomllib")

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base", "isal": "python-isal"}


def read(name: str):
    """A YAML file, without mkdocs' own tags."""
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def name_and_least(requirement: str) -> tuple[str, str]:
    """The package and its least version."""
    found = re.match(r"([\w.-]+)\s*>=\s*([\d.]+)", requirement)
    assert found, requirement
    return found[1], found[2]


def test_one_version():
    assert read("CITATION.cff")["version"] == __version__
    assert read("conda/recipe.yaml")["context"]["version"] == __version__


def test_conda_asks_for_what_the_package_asks_for():
    run = [
        entry["then"] if isinstance(entry, dict) else entry
        for entry in read("conda/recipe.yaml")["requirements"]["run"]
    ]
    found = dict(map(name_and_least, run))
    assert found.pop("python") == name_and_least(f"python{PROJECT['requires-python']}")[1]
    asked = dict(map(name_and_least, PROJECT["dependencies"]))
    assert found == {CONDA.get(name, name): least for name, least in asked.items()}


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=str)
def test_workflows(path):
    """Each is well formed, may take no longer than it says, and only reads unless it says so."""
    flow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert flow["permissions"] == {"contents": "read"}
    for name, job in flow["jobs"].items():
        assert job["steps"], name
        assert "timeout-minutes" in job, name


def test_ci_is_one_script():
    steps = read(".github/workflows/tests.yml")["jobs"]["tests"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["bash .ci/run"]


def test_hooks_are_programs_of_an_extra():
    """Nothing is downloaded; ruff, mypy and the others are of the extras."""
    hooks = [hook for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert {repo["repo"] for repo in read(".pre-commit-config.yaml")["repos"]} == {"local"}
    extras = PROJECT["optional-dependencies"]
    given = {name_and_least(x)[0] for x in (*extras["test"], *extras["dev"]) if ">=" in x}
    for hook in hooks:
        program = hook["entry"].split()[0]
        assert {program, "pre-commit-hooks"} & given if "fixer" in program else program in given


def test_the_context_of_a_container_has_what_a_build_reads():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert all((ROOT / name).exists() for name in kept)
    assert {"build_support", "csrc", "kernels", "lganet_fast", "pyproject.toml", "setup.py"} <= kept


def test_types_come_with_the_package():
    assert (Path(lganet_fast.__file__).parent / "py.typed").exists()
