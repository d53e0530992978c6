"""The folder of a run: what is written there, each file whole or not at all."""

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
from .schedule import Schedule
from .step import NotFiniteError


class RunFolder:
    """The files of a run, but for its log (`journal`). `path` need not be there yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = path / "last.pt"

    def state(self, *, resume: bool) -> dict[str, Any] | None:
        """What the run there left to go on from; None where there is none.

        Raises InputError where there is one that is not to be resumed.
        """
        if not self.last.exists():
            return None
        if not resume:
            raise InputError(
                f"{self.path} already holds a run: --resume goes on with it, another "
                "output.folder begins a new one"
            )
        return states.load(self.last)

    def make(self, config: Config) -> None:
        """Create the folder, with config.toml. Raises InputError where it cannot be."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write into {self.path}: {error.strerror}") from error
        with atomic(self.path / "config.toml") as temporary:
            temporary.write_text(dumps(config), "utf-8", "backslashreplace")

    def note_end(self, schedule: Schedule) -> None:
        """Have finished.json there where the run has ended, and only there."""
        path = self.path / "finished.json"
        if schedule.done:
            write_report_json(path, {"steps": schedule.step, "seconds": schedule.spent})
        else:
            path.unlink(missing_ok=True)

    def save(self, network: Network, card: Card, state: dict[str, Any]) -> None:
        """Write last.safetensors and then last.pt, which is what counts."""
        save_network(network, self.path / "last.safetensors", card)
        states.save(self.last, state)

    def save_best(self, network: Network, card: Card) -> None:
        """Write best.safetensors."""
        save_network(network, self.path / "best.safetensors", card)

    def picture(self, epoch: int) -> Path:
        """Where the picture of an epoch goes; its folder is made."""
        folder = self.path / "pictures"
        folder.mkdir(exist_ok=True)
        return folder / f"{epoch:04d}.png"

    def keep_failure(
        self, error: NotFiniteError, step: int, rank: int, network: Network
    ) -> InputError:
        """Keep the batch that made something not finite in a step; returns what to raise."""
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
            f"({listed}): {path} holds the images and the network"
        )
