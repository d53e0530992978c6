"""The folder of a run: its files, each written completely or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config.loading import Config, dumps
from ..errors import InputError
from ..models import Network
from ..models.checkpoint import Card
from ..models.checkpoint import save as save_network
from ..runtime.files import atomic
from ..runtime.json_files import write_report_json
from . import state as states
from .average import Average
from .schedule import Schedule
from .step import NotFiniteError


class RunFolder:
    """The files of a run except its log (`journal`). `path` need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = path / "last.pt"
        self.config = path / "config.toml"

    @property
    def begun(self) -> bool:
        """Whether there is a run in the folder, perhaps without a checkpoint yet."""
        return self.config.is_file()

    def state(self, *, resume: bool) -> dict[str, Any] | None:
        """The state of the run in the folder; None before its first checkpoint.

        Raises InputError if there is a checkpoint but `resume` is false, or no run to resume.
        """
        if resume and not self.begun:
            raise InputError(f"{self.path} contains no run to resume: start one without --resume")
        if not self.last.exists():
            return None
        if not resume:
            raise InputError(
                f"{self.path} already contains a run: use --resume to resume it, or another "
                "output.folder for a new run"
            )
        return states.load(self.last)

    def make(self, config: Config) -> None:
        """Create the folder, with config.toml. Raises InputError if that fails."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write into {self.path}: {error.strerror}") from error
        with atomic(self.config) as temporary:
            temporary.write_text(dumps(config), "utf-8", "backslashreplace")

    def note_end(self, schedule: Schedule) -> None:
        """Write finished.json if the run has ended, else remove it."""
        path = self.path / "finished.json"
        if schedule.done:
            write_report_json(path, {"steps": schedule.step, "seconds": schedule.spent})
        else:
            path.unlink(missing_ok=True)

    def save(self, network: Network, card: Card, state: dict[str, Any], average: Average) -> None:
        """Write last.safetensors, with the mean weights, then last.pt, from which runs resume."""
        with average.applied():
            save_network(network, self.path / "last.safetensors", card)
        states.save(self.last, state)

    def save_best(self, network: Network, card: Card) -> None:
        """Write best.safetensors."""
        save_network(network, self.path / "best.safetensors", card)

    def picture(self, epoch: int) -> Path:
        """The path of an epoch's picture; creates its folder."""
        folder = self.path / "pictures"
        folder.mkdir(exist_ok=True)
        return folder / f"{epoch:04d}.png"

    def keep_failure(
        self, error: NotFiniteError, step: int, rank: int, network: Network
    ) -> InputError:
        """Save the batch of a step that was not finite; returns the exception to raise."""
        path = self.path / (f"failure.{rank}.pt" if rank else "failure.pt")
        batch = error.batch
        states.save(
            path,
            {
                "step": step,
                "names": batch.names,
                "loss": error.loss,
                "parts": error.parts,
                "moving": batch.moving,
                "fixed": batch.fixed,
                "network": network.state_dict(),
            },
        )
        listed = ", ".join(f"{name} {value:g}" for name, value in error.parts.items())
        return InputError(
            f"{error.what} of {', '.join(batch.names)} is not finite in step {step} "
            f"({listed}): {path} contains the images and the network"
        )
