"""Running the command: its exit codes and one-line errors."""

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
    """Print a warning as one line, without its source location."""
    say(f"warning: {message}")


def interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """Handle SIGTERM like Ctrl-C, so that no partial file is left."""
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None, loaded: Callable[[], None] = lambda: None) -> int:
    """Run one command; returns the exit code.

    0; 2 for bad input; 3 with --strict for a result that is not good; 130 when interrupted.
    loaded: called once all modules are loaded, before the action runs.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may not be valid text
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
    """Flush standard output; return the exit code, 2 if the output cannot be written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe, such as head, has closed it
        discard_output()
    except OSError as error:
        discard_output()
        say(f"error: cannot write to standard output: {reason(error)}")
        return code or 2
    return code


def discard_output() -> None:
    """Discard buffered output, so that Python does not fail at exit."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(message: str) -> None:
    """Print one line on stderr, if stderr can be written."""
    progress = sys.modules.get(f"{PACKAGE}.runtime.progress")  # if not loaded, there is no bar
    with suppress(OSError), nullcontext() if progress is None else progress.beside_bars():
        print(f"lganet-fast: {one_line(message)}", file=sys.stderr, flush=True)


def action_of(arguments: argparse.Namespace) -> Callable[[argparse.Namespace], int | None]:
    """Return the function that runs a parsed command."""
    module = import_module(f".actions.{arguments.command}", __package__)
    run: Callable[[argparse.Namespace], int | None] = module.run
    return run


def execute(arguments: argparse.Namespace, loaded: Callable[[], None]) -> int:
    """Run a parsed command, with one-line errors on stderr; returns the exit code."""
    with warnings.catch_warnings(), logging_to(say, arguments.verbose, arguments.quiet):
        warnings.showwarning = print_warning
        warnings.simplefilter("ignore")  # other packages' warnings do not help the user
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
