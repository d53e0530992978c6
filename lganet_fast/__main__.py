"""The command `lganet-fast`, also as `python -m lganet_fast`.

Handles Ctrl-C before it loads anything heavy.
"""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130


def leave(number: int, frame: FrameType | None) -> None:
    """Exit at once: for Ctrl-C during imports, when nothing is being written."""
    os.write(2, b"lganet-fast: interrupted\n")
    os._exit(INTERRUPTED)


def on_interrupt(handler: object) -> None:
    """Set the handler of Ctrl-C, unless Ctrl-C is ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)  # type: ignore[arg-type]


def open_standard_files() -> None:
    """Open the null device in place of a closed standard input, output or error.

    Otherwise the next opened file gets its descriptor, and the printed output.
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
    """Let GNU OpenMP's waiting threads spin only briefly; to be called before torch loads.

    By default they spin for milliseconds: with other work on the same cores, that made a
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
