"""The API pages of the site: every operation is there, and every name on them exists."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from lganet_fast.ops import OPERATIONS

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))


def names_on(page):
    """The full names that a page documents."""
    return re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_operation_is_on_the_page_of_the_operations():
    names = names_on(ROOT / "docs" / "api" / "operations.md")
    missing = {f"lganet_fast.ops.{name}.{name}" for name in OPERATIONS} - set(names)
    assert missing == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_on_a_page_exists(page):
    names = names_on(page)
    assert names
    for name in names:
        module, attribute = name.rsplit(".", 1)
        assert getattr(import_module(module), attribute).__doc__, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_is_in_the_navigation(page):
    assert f": api/{page.name}\n" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
