"""docs/reproducing.md tells the truth: its commands parse, its configurations exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lganet_fast import config
from lganet_fast.cli import build_parser

TEXT = (Path(__file__).parents[2] / "docs" / "reproducing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|console)\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [line for _, block in BLOCKS for line in block.splitlines()]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_parses(line):
    words = shlex.split(line)
    start = words.index("lganet-fast" if "lganet-fast" in words else "lganet_fast")
    args = build_parser().parse_args(words[start + 1 :])
    if "config" in args:
        overrides = vars(args).get("overrides", [])
        assert config.load(args.config, overrides).data.layout


def test_every_configuration_is_there():
    named = set(re.findall(r"`(\w+)`", TEXT))
    assert set(config.shipped()) <= named


def test_every_variable_is_the_configurations():
    for name, variable in re.findall(r"^\| `(\w+)` \| `(\w+)` \|", TEXT, re.MULTILINE):
        assert config.load(name).data.root == f"${{{variable}}}"
