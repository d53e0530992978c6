"""The progress bar of all long work: in a terminal only, else a log line every few seconds."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from tqdm import tqdm

LAYOUT = "{desc} {percentage:3.0f}%|{bar:24}| {elapsed} < {remaining}{postfix}"
COUNTED = LAYOUT.replace("|{bar:24}|", "|{bar:24}| {n_fmt}/{total_fmt}")
EVERY = 10.0  # seconds between two log lines

log = logging.getLogger(__name__)


class Progress:
    """Progress towards `total`; use it in a `with` block.

    name: of the work. done: the initial progress. counted: whether to show the numbers to the user,
    or only the percentage. Shown as a bar on stderr if that is a terminal, else logged at level
    debug; neither if quiet.
    """

    def __init__(
        self, total: float, name: str, quiet: bool, done: float = 0, counted: bool = True
    ) -> None:
        self.quiet, self.logged = quiet, -EVERY
        self.bar = tqdm(
            desc=name,
            total=total,
            initial=done,
            disable=quiet or not sys.stderr.isatty(),
            bar_format=COUNTED if counted else LAYOUT,
            mininterval=0.2,
            file=sys.stderr,
        )
        self.name, self.total = name, total

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def at(
        self, done: float, note: str = "", name: str | None = None, total: float | None = None
    ) -> None:
        """Set the progress; note: further information, such as a loss."""
        changed = name not in (None, self.name)
        self.name = self.name if name is None else name
        self.total = self.total if total is None else total
        if not self.bar.disable:
            self.bar.n, self.bar.total = done, self.total
            self.bar.set_description_str(self.name, refresh=False)
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(0)
        elif not self.quiet and (changed or done >= self.total or self.waited()):
            self.logged = time.monotonic()
            share = 100 * done / self.total if self.total else 100
            log.debug("%s: %.0f%%%s", self.name, share, f", {note}" if note else "")

    def waited(self) -> bool:
        """Whether the next log line is due."""
        return time.monotonic() - self.logged >= EVERY

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()


@contextmanager
def beside_bars() -> Iterator[None]:
    """Allow printing on stderr in the block, above the bars."""
    with tqdm.external_write_mode(file=sys.stderr):
        yield
