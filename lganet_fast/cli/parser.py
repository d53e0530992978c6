"""The parser of the command: options of every subcommand, one-line errors, completion."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from importlib import import_module
from typing import Any, NoReturn

from ..version import __version__
from .verbosity import add_verbosity

GIVEN = "options given"  # the namespace's key for the options seen so far
COMMANDS = {
    "register": "register a moving image to a fixed image; no weights needed",
    "demo": "recover a known deformation of the MNI152 template; no download",
    "apply": "apply a saved transform to an image, labels or points",
    "convert": "write a transform in another file format",
    "metrics": "score label maps, a transform or landmarks",
    "data": "inspect a data set",
    "train": "train a network on a data set",
    "evaluate": "score a method on a data set, with tables and figures for a paper",
    "reproduce": "make a table or figure of the paper, with all methods, from data to LaTeX",
    "doctor": "show versions, devices, and which path each operation takes",
}
SUMMARISED = ("register", "train", "evaluate")  # commands that print a summary of their output
SHELLS = ("bash", "zsh", "tcsh")


class Once(argparse._StoreAction):
    """Stores an option's value; a second file is an error, where argparse would drop the first.

    For other options the last value counts, so that a user can override a script. An empty value,
    as of a shell's variable that is not set, is an error: as a path it would be this folder.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option: str | None = None,
    ) -> None:
        """Store the value. Raises ArgumentError for a second file and for an empty value."""
        if values == "" or (isinstance(values, list) and "" in values):
            raise argparse.ArgumentError(self, "must not be empty")
        by_default = self.default in (None, argparse.SUPPRESS)
        if option is not None and self.type is self.choices is None and by_default:
            given = namespace.__dict__.setdefault(GIVEN, set())
            if self.dest in given:
                raise argparse.ArgumentError(self, "may be given once only")
            given.add(self.dest)
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """An argument parser with one-line errors."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in (None, "store"):
            self.register("action", name, Once)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse like argparse, without the key GIVEN in the result."""
        found = super().parse_args(args, namespace)
        vars(found).pop(GIVEN, None)
        return found

    def error(self, message: str) -> NoReturn:
        """Print the error and where to find help; exit with code 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


class Completion(argparse.Action):
    """Prints a shell's completion script and exits."""

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
    """The parser of the whole command; commands: subcommands whose options to add."""
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
            import_module(f".{name}", __package__).add_options(command)
            add_verbosity(command, summary=name in SUMMARISED)
    return parser
