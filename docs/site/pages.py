"""A MkDocs hook: adds pages and pictures from outside docs/ and converts links."""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
LOG = logging.getLogger("mkdocs.hooks.pages")
ABOVE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
HREF = re.compile(r'href="(?P<target>[^"#:]+\.(?:md|ipynb))"')
LINK = re.compile(r"\]\((?P<target>[^)#\s:]+)(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the pictures of the benchmarks."""
    for source, page in ABOVE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    for picture in sorted((ROOT / "benchmarks" / "results").glob("*.png")):
        place = picture.relative_to(ROOT).as_posix()
        files.append(File.generated(config, place, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Convert links between files of the repository to links of the site."""
    sources = {page: source for source, page in ABOVE.items()}
    here = posixpath.dirname(sources.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, match["target"]))
        target = ABOVE.get(target, target.removeprefix("docs/"))
        return f"]({posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or '.')}"

    return LINK.sub(link, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Convert the links of notebooks, which MkDocs does not treat as Markdown."""

    def link(match: re.Match[str]) -> str:
        target = posixpath.join(posixpath.dirname(page.file.src_uri), match["target"])
        file = files.get_file_from_path(posixpath.normpath(target))
        if file is None:
            LOG.warning("%s links to %s, which does not exist", page.file.src_uri, match["target"])
            return match[0]
        return f'href="{file.url_relative_to(page.file)}"'

    return HREF.sub(link, html) if page.file.src_uri.endswith(".ipynb") else html
