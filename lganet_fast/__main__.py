"""The command `lganet-fast`, also as `python -m lganet_fast`.

Nothing heavy is loaded before a Ctrl-C is provided for.
"""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130


def leave(number: int, frame: FrameType | None) -> None:
    """Be gone at once: for Ctrl-C where nothing is written, and no import may be unwound."""
    os.write(2, b"lganet-fast: interrupted\n")
    os._exit(INTERRUPTED)


def on_interrupt(handler: object) -> None:
    """Have Ctrl-C do something else, unless it is to do nothing at all."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)  # type: ignore[arg-type]


def open_standard_files() -> None:
    """Put the null device where standard input, output or error are closed.

    Else the next file that is opened takes their number, and what is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            nowhere = open(os.devnull, "w" if number else "r", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, nowhere)


def wait_politely() -> None:
    """Have GNU's threads spin only shortly while they wait; to be called before torch loads.

    By default they do for milliseconds: beside other work on the same cores that made a
    registration five times slower.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def main() -> int:
    """Run the command; returns its exit code."""
    on_interrupt(leave)
    open_standard_files()
    from .runtime import malloc

    wait_politely()
    malloc.keep()
    from .cli import main as run

    try:
        return run(loaded=lambda: on_interrupt(signal.default_int_handler))
    finally:
        on_interrupt(leave)


if __name__ == "__main__":
    sys.exit(main())
