"""The one exception that means the input, not the program, is at fault."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST = 300  # characters of a message
WORD = 120  # characters of a word in a message that would be longer


class InputError(ValueError):
    """Input that cannot be used. The message is one line: what is wrong and what is allowed.

    Whatever a file puts into it, the message has at most LONGEST characters, all printable.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class InputWarning(UserWarning):
    """Input that is used, but that its user should look at. The message is one line."""


def one_line(text: str) -> str:
    """The text as one line of at most LONGEST printable characters.

    Where it is longer, long words such as paths lose their middle, and then the line its end.
    """
    line = _printable(text.split())
    if len(line) > LONGEST:
        line = _printable(map(_shortened, text.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 4]} ..."


def _printable(words: Iterable[str]) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(words))


def _shortened(word: str) -> str:
    return word if len(word) <= WORD else f"{word[: WORD // 2]}...{word[-WORD // 2 :]}"
