"""Running the command: its exit codes, and what goes wrong in one line."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from importlib import import_module
from types import FrameType
from typing import NoReturn, TextIO

from ..errors import InputError, InputWarning, one_line
from ..runtime.files import reason
from .parser import build_parser
from .verbosity import PACKAGE, logging_to


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


def main(argv: Sequence[str] | None = None, loaded: Callable[[], None] = lambda: None) -> int:
    """Run one command; returns the exit code.

    0; 2 for bad input; 3 for a result that is not good, where that was asked; 130 when interrupted.
    loaded: called when all modules are, and before anything is done.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may be no text
    before = signal.signal(signal.SIGTERM, interrupted)
    code = 0
    try:
        words = sys.argv[1:] if argv is None else argv
        code = execute(build_parser(words[:1]).parse_args(words), loaded)
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
    progress = sys.modules.get(f"{PACKAGE}.runtime.progress")  # not loaded: there is no bar
    with suppress(OSError), nullcontext() if progress is None else progress.beside_bars():
        print(f"lganet-fast: {one_line(message)}", file=sys.stderr, flush=True)


def action_of(arguments: argparse.Namespace) -> Callable[[argparse.Namespace], int | None]:
    """What carries out a parsed command."""
    module = import_module(f".actions.{arguments.command}", __package__)
    run: Callable[[argparse.Namespace], int | None] = module.run
    return run


def execute(arguments: argparse.Namespace, loaded: Callable[[], None]) -> int:
    """Run a parsed command, what goes wrong in one line on stderr; returns the exit code."""
    with warnings.catch_warnings(), logging_to(say, arguments.verbose, arguments.quiet):
        warnings.showwarning = print_warning
        warnings.simplefilter("ignore")  # what other packages say means nothing to the user
        warnings.simplefilter("default", InputWarning)
        try:
            run = action_of(arguments)
            loaded()
            return run(arguments) or 0
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
