"""The exception for bad input, as opposed to a fault of the program."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST = 300  # characters of a message
WORD = 120  # characters of a word in a message that would be longer


class InputError(ValueError):
    """Input that cannot be used. The message is one line: what is wrong and what is allowed.

    The message has at most LONGEST characters, all printable, whatever a file contains.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class InputWarning(UserWarning):
    """Input that is used but that the user should check. The message is one line."""


def one_line(text: str) -> str:
    """The text as one line of at most LONGEST printable characters.

    In a longer text, long words such as paths are cut in the middle, then the line at its end.
    """
    line = _printable(text.split())
    if len(line) > LONGEST:
        line = _printable(map(_shortened, text.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 4]} ..."


def _printable(words: Iterable[str]) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(words))


def _shortened(word: str) -> str:
    return word if len(word) <= WORD else f"{word[: WORD // 2]}...{word[-WORD // 2 :]}"
