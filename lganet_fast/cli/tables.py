"""Tables that commands print: drawn in a terminal, else as aligned text."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as Drawn

WIDTH = 100  # columns to which aligned text is wrapped
GAP = 2  # spaces between two columns


@dataclass(frozen=True)
class Table:
    """Rows of cells, all of the same length.

    head: the first row names the columns. numbers: all columns but the first are right-aligned.
    wrapped: the last column's text is wrapped at WIDTH. least: minimum widths of the first columns.
    """

    rows: Sequence[Sequence[str]]
    head: bool = False
    numbers: bool = False
    wrapped: bool = False
    least: tuple[int, ...] = ()

    def text(self) -> str:
        """The table as aligned text."""
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        for place, width in enumerate(self.least):
            widths[place] = max(widths[place], width)
        return "\n".join(line for row in self.rows for line in self._lines(row, widths))

    def _lines(self, row: Sequence[str], widths: Sequence[int]) -> list[str]:
        if self.wrapped:
            start = "".join(
                cell.ljust(width + GAP) for cell, width in zip(row[:-1], widths[:-1], strict=True)
            )
            indent = " " * len(start)
            lines = textwrap.wrap(row[-1], WIDTH, initial_indent=start, subsequent_indent=indent)
            return lines or [start.rstrip()]
        cells = [
            cell.rjust(width) if self.numbers and place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return [(" " * GAP).join(cells).rstrip()]

    def drawn(self) -> Drawn:
        """The table for a terminal."""
        from rich import box
        from rich.table import Table as Drawn
        from rich.text import Text

        table = Drawn(box=box.SIMPLE_HEAD if self.head else None, show_header=self.head)
        names, rows = (self.rows[0], self.rows[1:]) if self.head else (self.rows[0], self.rows)
        for place, name in enumerate(names):
            right = self.numbers and place > 0
            table.add_column(Text(name), justify="right" if right else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        return table


Part = str | Table


def text(parts: Sequence[Part]) -> str:
    """Lines and tables as aligned text."""
    return "\n".join(part if isinstance(part, str) else part.text() for part in parts)


def show(parts: Sequence[Part]) -> None:
    """Print lines and tables."""
    if not sys.stdout.isatty():
        print(text(parts))
        return
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    for part in parts:
        if isinstance(part, str):
            console.print(part, soft_wrap=True)
        else:
            console.print(part.drawn())


def show_markdown(content: str) -> None:
    """Print Markdown, its tables drawn in a terminal."""
    if not sys.stdout.isatty():
        print(content, end="")
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(content))
