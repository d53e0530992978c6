"""Options shared by several subcommands."""

from __future__ import annotations

import argparse

from .. import config
from ..registration.settings import RUN


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add CONFIG and --set."""
    parser.add_argument(
        "config",
        metavar="CONFIG",
        help=f"a TOML file, or one of {', '.join(config.shipped())}",
    )
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add --set."""
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="A.B=C",
        help="change a value of the configuration, such as --set data.root=/data; repeatable",
    )


def read_config(args: argparse.Namespace) -> config.Config:
    """Load the configuration that the options name."""
    return config.load(args.config, args.overrides)


def add_device(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add --device and --threads."""
    parser.add_argument(
        "--device",
        default=RUN.device,
        metavar="D",
        help="auto, cpu, cuda or cuda:N (default: %(default)s, a GPU if there is one)",
    )
    parser.add_argument(
        "--threads", type=int, default=RUN.threads, metavar="N", help="CPU threads (default: all)"
    )
