"""The site builds without a warning, and shows what it is made of."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

for needed in ("mkdocs", "material", "mkdocstrings", "mkdocs_jupyter"):
    pytest.importorskip(needed)

ROOT = Path(__file__).parents[2]


def words_of(page: Path) -> str:
    """The text of a page, as a reader sees it."""
    text = re.sub(r"<(script|style).*?</\1>", " ", page.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", text)))


def test_builds_strictly(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    operations = words_of(tmp_path / "api" / "operations" / "index.html")
    assert "image(p + flow(p)) at every voxel p of the flow's grid" in operations
    assert "mode: " in operations
    assert "Register a pair" in words_of(tmp_path / "notebooks" / "register_a_pair" / "index.html")
    assert "Deformable registration of 3D medical images" in words_of(tmp_path / "index.html")
    assert "scale" in words_of(tmp_path / "contributing" / "index.html")
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r'<a[^>]* href="([^"#:]+\.(?:md|ipynb))"', text) == [], page
    assert not list(tmp_path.rglob("*.py"))
