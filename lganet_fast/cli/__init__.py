"""The command `lganet-fast`: one file per subcommand."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn, TextIO

from ..errors import InputError
from ..version import __version__
from . import apply, convert, data, demo, doctor, evaluate, metrics, register, train

COMMANDS = (register, demo, apply, convert, metrics, data, train, evaluate, doctor)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the error and where to find help; exit with code 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    parser = Parser(prog="lganet-fast", description="Deformable 3D medical image registration.")
    parser.add_argument("--version", action="version", version=f"lganet-fast {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning as one line, without the place in the code."""
    print(f"lganet-fast: warning: {message}", file=file or sys.stderr)


def interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """Make a request to stop unwind like Ctrl-C, so that no partial file stays."""
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    before = signal.signal(signal.SIGTERM, interrupted)
    try:
        return execute(build_parser().parse_args(argv))
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def execute(arguments: argparse.Namespace) -> int:
    """Run a parsed command, what goes wrong in one line on stderr; returns the exit code."""
    with warnings.catch_warnings():
        warnings.showwarning = print_warning
        try:
            arguments.run(arguments)
            sys.stdout.flush()
        except InputError as error:
            print(f"lganet-fast: error: {error}", file=sys.stderr)
            return 2
        except MemoryError as error:
            print(f"lganet-fast: error: out of memory: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as stop:
            message = str(stop) or "interrupted; no partial file is left"
            print(f"lganet-fast: {message}", file=sys.stderr)
            return 130
        except BrokenPipeError:  # the reader of a pipe, such as head, has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
    return 0
