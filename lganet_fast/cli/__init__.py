"""The command `lganet-fast`: a file per subcommand with its options, and its action in `actions`.

An action is loaded when its subcommand runs; imports every room below.
"""

from .command import action_of, main
from .parser import COMMANDS, SHELLS, build_parser

__all__ = ["COMMANDS", "SHELLS", "action_of", "build_parser", "main"]
