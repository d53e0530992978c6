"""The command `lganet-fast`: a file per subcommand here, with its options, and one in `actions`.

What a subcommand does is loaded when it runs; imports every room below.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext, suppress
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn, TextIO

from ..errors import InputError, InputWarning, one_line
from ..runtime.files import reason
from ..version import __version__
from .verbosity import PACKAGE, add_verbosity, logging_to

GIVEN = "options given"  # where a namespace notes them
COMMANDS = {
    "register": "register a moving image to a fixed one; no weights needed",
    "demo": "recover a known deformation of the MNI152 template; no download",
    "apply": "move an image, labels or points through a saved transform",
    "convert": "write a transform in another file format",
    "metrics": "score label maps, a transform or landmarks",
    "data": "look at a data set",
    "train": "train a network on a data set",
    "evaluate": "score a method on a data set, with tables and figures for a paper",
    "reproduce": "make a table or figure of the paper, all methods, from data to LaTeX",
    "doctor": "show versions, devices, and which path each operation takes",
}
SUMMARISED = ("register", "train", "evaluate")  # what they print sums up what they write
SHELLS = ("bash", "zsh", "tcsh")


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


class Completion(argparse.Action):
    """Prints what a shell needs to complete the command's words, and ends."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option: str | None = None,
    ) -> NoReturn:
        """Print the script for a shell."""
        import shtab

        print(shtab.complete(build_parser(), shell=str(values)))
        parser.exit()


def build_parser(commands: Collection[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser of the whole command; commands: those whose options it knows."""
    parser = Parser(prog="lganet-fast", description="Deformable 3D medical image registration.")
    parser.add_argument("--version", action="version", version=f"lganet-fast {__version__}")
    parser.add_argument(
        "--completion",
        action=Completion,
        default=argparse.SUPPRESS,
        choices=SHELLS,
        metavar="SHELL",
        help=f"print a completion script for {', '.join(SHELLS[:-1])} or {SHELLS[-1]}",
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, purpose in COMMANDS.items():
        command = subparsers.add_parser(name, help=purpose)
        command.set_defaults(command=name, verbose=False, quiet=False)
        if name in commands:
            import_module(f".{name}", __name__).add_options(command)
            add_verbosity(command, summary=name in SUMMARISED)
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
    module = import_module(f".actions.{arguments.command}", __name__)
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
