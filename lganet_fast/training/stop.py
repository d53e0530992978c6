"""Stopping between two steps on request."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """In its `with` block the first Ctrl-C or SIGTERM only sets `asked`.

    A second Ctrl-C interrupts at once. Outside the main thread, signals are not handled.
    loud: log the request as a warning.
    """

    def __init__(self, loud: bool) -> None:
        self.loud = loud
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:  # torchrun sends both
            raise KeyboardInterrupt
        self.asked = True
        if self.loud:
            log.warning("stopping after this step; press Ctrl-C again to stop now")
