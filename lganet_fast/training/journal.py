"""The progress of a run: log.jsonl, a bar, and optionally TensorBoard."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..runtime.progress import Progress
from .schedule import Standing


class Journal:
    """The log of a run that is at `step`; its bar shows `standing`.

    folder: of log.jsonl, which is first cut to `size` bytes, to drop the lines written after the
    state from which the run resumes. quiet: no bar. tensorboard: also events, in the same folder.
    Raises InputError if TensorBoard is requested but not installed.
    """

    def __init__(
        self,
        folder: Path,
        size: int,
        step: int,
        standing: Standing,
        *,
        quiet: bool,
        tensorboard: bool,
    ) -> None:
        self.events = event_writer(folder, step) if tensorboard else None
        self.file = open(folder / "log.jsonl", "ab")  # noqa: SIM115
        self.file.truncate(min(size, os.fstat(self.file.fileno()).st_size))
        self.done = standing.done
        self.bar = Progress(standing.total, standing.unit, quiet, standing.done)
        self.shown: dict[str, str] = {}

    @property
    def size(self) -> int:
        """Bytes of the log so far."""
        return os.fstat(self.file.fileno()).st_size

    def step(self, record: dict[str, Any], done: int) -> None:
        """Log an optimiser step; done: the progress after it."""
        self._write(record)
        self.done = done
        self._show(loss=record["loss"])
        if self.events is not None:
            self.events.add_scalar("loss", record["loss"], record["step"])
            self.events.add_scalar("lr", record["lr"], record["step"])
            for name, value in record["parts"].items():
                self.events.add_scalar(f"parts/{name}", value, record["step"])

    def validation(self, record: dict[str, Any]) -> None:
        """Log the scores of the validation pairs."""
        self._write(record)
        scores = record["validation"]
        self._show(**{f"validation {name}": value for name, value in scores.items()})
        if self.events is not None:
            for name, value in scores.items():
                self.events.add_scalar(f"validation/{name}", value, record["step"])

    def close(self) -> None:
        """Close what is open."""
        self.bar.close()
        self.file.close()
        if self.events is not None:
            self.events.close()

    def _write(self, record: dict[str, Any]) -> None:
        self.file.write(json.dumps(record).encode() + b"\n")
        self.file.flush()

    def _show(self, **values: float) -> None:
        self.shown |= {name: f"{value:.4f}" for name, value in values.items()}
        text = ", ".join(f"{name} {value}" for name, value in self.shown.items())
        self.bar.at(self.done, text)


def event_writer(folder: Path, step: int) -> Any:
    """A TensorBoard writer that hides an earlier run's events after `step`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "output.tensorboard needs TensorBoard: pip install 'lganet_fast[tensorboard]'"
        ) from error
    return SummaryWriter(folder, purge_step=step + 1)
