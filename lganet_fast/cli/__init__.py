"""The command `lganet-fast`: a file per subcommand here, with its options, and one in `actions`.

What a subcommand does is loaded when it runs; imports every room below.
"""

from .command import action_of, main
from .parser import COMMANDS, SHELLS, build_parser

__all__ = ["COMMANDS", "SHELLS", "action_of", "build_parser", "main"]
