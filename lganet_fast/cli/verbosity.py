"""Verbosity: -v and -q, and the only place that sets up logging."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PACKAGE = __package__.partition(".")[0]


def add_verbosity(parser: argparse.ArgumentParser, summary: bool) -> None:
    """Add -v and -q; summary: whether the subcommand prints a summary, which -q suppresses."""
    group = parser.add_mutually_exclusive_group()
    for letter, name, purpose in (
        ("-v", "--verbose", "print each stage and its time on stderr"),
        (
            "-q",
            "--quiet",
            "print only errors and warnings" if summary else "print only the results, no progress",
        ),
    ):
        group.add_argument(
            letter, name, action="store_true", default=argparse.SUPPRESS, help=purpose
        )


class Lines(logging.Handler):
    """Passes each record's message to a function."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self.say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Pass the message on."""
        self.say(record.getMessage())


@contextmanager
def logging_to(say: Callable[[str], None], verbose: bool, quiet: bool) -> Iterator[None]:
    """Print the package's log in the block: warnings; info unless quiet; all if verbose."""
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
