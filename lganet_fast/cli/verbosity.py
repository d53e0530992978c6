"""How much a command tells of its progress: -v and -q, and the one place that sets logging up."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PACKAGE = __package__.partition(".")[0]


def add_verbosity(parser: argparse.ArgumentParser, summary: bool) -> None:
    """Add -v and -q; summary: the subcommand prints one, which -q leaves out."""
    group = parser.add_mutually_exclusive_group()
    for letter, name, purpose in (
        ("-v", "--verbose", "tell each stage and how long it took on stderr"),
        (
            "-q",
            "--quiet",
            "print only errors and warnings" if summary else "show no progress, only the results",
        ),
    ):
        group.add_argument(
            letter, name, action="store_true", default=argparse.SUPPRESS, help=purpose
        )


class Lines(logging.Handler):
    """Says each record by a function."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self.say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        self.say(record.getMessage())


@contextmanager
def logging_to(say: Callable[[str], None], verbose: bool, quiet: bool) -> Iterator[None]:
    """Have the package's log said inside: warnings; information unless quiet; all if verbose."""
    logger, handler = logging.getLogger(PACKAGE), Lines(say)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
