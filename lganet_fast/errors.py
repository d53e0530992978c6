"""The one exception that means the input, not the program, is at fault."""

from __future__ import annotations

LONGEST = 300  # characters of a message


class InputError(ValueError):
    """Input that cannot be used. The message is one line: what is wrong and what is allowed.

    Whatever a file puts into it, the message has at most LONGEST characters, all printable.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class InputWarning(UserWarning):
    """Input that is used, but that its user should look at. The message is one line."""


def one_line(text: str) -> str:
    """The text as one line of at most LONGEST printable characters, what is too long cut out."""
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    if len(line) <= LONGEST:
        return line
    half = (LONGEST - len(" ... ")) // 2
    return f"{line[:half]} ... {line[-half:]}"
