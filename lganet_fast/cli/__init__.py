"""The command `lganet-fast`: one file per subcommand."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn, TextIO

from ..errors import InputError, InputWarning, one_line
from ..runtime.files import reason
from ..version import __version__
from . import apply, convert, data, demo, doctor, evaluate, metrics, register, train

GIVEN = "options given"  # where a namespace notes them
COMMANDS = (register, demo, apply, convert, metrics, data, train, evaluate, doctor)


class Once(argparse._StoreAction):
    """Keeps an option's value; of a file, a second one is refused, where argparse drops the first.

    Of other options the last one counts, so that what a script says can be changed.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option: str | None = None,
    ) -> None:
        """Store the value. Raises ArgumentError where there is one already."""
        if option is not None and self.type is self.choices is self.default is None:
            given = namespace.__dict__.setdefault(GIVEN, set())
            if self.dest in given:
                raise argparse.ArgumentError(self, "may be given once only")
            given.add(self.dest)
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in (None, "store"):
            self.register("action", name, Once)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, without the note of which options were given."""
        found = super().parse_args(args, namespace)
        vars(found).pop(GIVEN, None)
        return found

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
    say(f"warning: {message}")


def interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """Make a request to stop unwind like Ctrl-C, so that no partial file stays."""
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may be no text
    before = signal.signal(signal.SIGTERM, interrupted)
    code = 0
    try:
        code = execute(build_parser().parse_args(argv))
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
        code = flushed(code)
    return code


def flushed(code: int) -> int:
    """Write out what was printed; the exit code, 2 where that cannot be written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe, such as head, has had enough
        discard_output()
    except OSError as error:
        discard_output()
        say(f"error: cannot write to standard output: {reason(error)}")
        return code or 2
    return code


def discard_output() -> None:
    """Send what is still to be printed nowhere, so that Python does not fail when it ends."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(message: str) -> None:
    """One line on stderr, if that can be written."""
    with suppress(OSError):
        print(f"lganet-fast: {one_line(message)}", file=sys.stderr, flush=True)


def execute(arguments: argparse.Namespace) -> int:
    """Run a parsed command, what goes wrong in one line on stderr; returns the exit code."""
    with warnings.catch_warnings():
        warnings.showwarning = print_warning
        warnings.simplefilter("ignore")  # what other packages say means nothing to the user
        warnings.simplefilter("default", InputWarning)
        try:
            arguments.run(arguments)
        except InputError as error:
            say(f"error: {error}")
            return 2
        except MemoryError as error:
            say(f"error: out of memory: {error}")
            return 2
        except KeyboardInterrupt as stop:
            say(str(stop) or "interrupted; no partial file is left")
            return 130
        except BrokenPipeError:
            discard_output()
        except OSError as error:
            discard_output()
            place = "" if error.filename is None else f"{error.filename}: "
            say(f"error: {place}{reason(error)}")
            return 2
    return 0
