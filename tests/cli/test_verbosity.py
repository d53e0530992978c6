"""How much a command tells: -v, -q and the log."""

from __future__ import annotations

import argparse
import logging

import pytest
from command import register

from lganet_fast.cli import COMMANDS, build_parser, main, verbosity


def leaves(parser):
    nested = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return [x for a in nested for p in a.choices.values() for x in leaves(p)] or [parser]


def test_every_subcommand_has_both():
    found = leaves(build_parser())
    assert len(found) == len(COMMANDS)
    for parser in found:
        options = parser._option_string_actions
        assert {"-v", "--verbose", "-q", "--quiet"} <= set(options), parser.prog


@pytest.mark.parametrize(
    ("words", "verbose", "quiet"),
    [
        (["doctor"], False, False),
        (["doctor", "-v"], True, False),
        (["data", "-q", "check", "ixi"], False, True),
        (["data", "check", "ixi", "-q"], False, True),
    ],
)
def test_they_are_read(words, verbose, quiet):
    found = build_parser().parse_args(words)
    assert (found.verbose, found.quiet) == (verbose, quiet)


def test_not_both_at_once(capsys):
    with pytest.raises(SystemExit):
        main(["doctor", "-v", "-q"])
    assert "not allowed with argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"verbose": True, "quiet": False}, ["stage", "resumed", "stopping"]),
        ({"verbose": False, "quiet": False}, ["resumed", "stopping"]),
        ({"verbose": False, "quiet": True}, ["stopping"]),
    ],
)
def test_the_level_is_that_of_the_option(flags, expected):
    said = []
    logger = logging.getLogger("lganet_fast.registration.pairwise")
    before = logging.getLogger("lganet_fast").level
    with verbosity.logging_to(said.append, **flags):
        logger.debug("stage")
        logger.info("%s", "resumed")
        logger.warning("stopping")
        logging.getLogger("another").warning("is not said here")
    logger.warning("nor what comes after")
    assert said == expected
    assert logging.getLogger("lganet_fast").level == before


def test_verbose_tells_the_stages(files, capsys):
    assert register("--no-qc", "-v") == 0
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("lganet-fast: ") for line in lines)
    stages = list(dict.fromkeys(line.split()[1] for line in lines))
    expected = ["read", "initial", "resolution", "optimise", "transform", "measure", "write"]
    assert [stage.rstrip(":") for stage in stages] == expected
