"""The order of the pairs: shared by ranks and resumable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from ..errors import InputError


class ShardedSampler(Sampler[int]):
    """A rank's part of one global order.

    The order of each epoch depends only on the seed and the epoch, and rank r takes positions
    r, r + world, ...: in each step the ranks together take the same pairs as one process with
    `world` times the batch. The last length % world pairs of an epoch's order are left out, so that
    all ranks take the same number.

    length: number of pairs. shuffle: False keeps their order. Iterating yields the rest of the
    epoch and advances with each index; after the last index the next epoch begins.
    Raises InputError if there are fewer pairs than ranks.
    """

    def __init__(
        self, length: int, seed: int = 0, rank: int = 0, world: int = 1, shuffle: bool = True
    ) -> None:
        if not 0 <= rank < world:
            raise InputError(f"rank must be from 0 to {world - 1}, got {rank}")
        if length < world:
            raise InputError(f"{length} pairs are too few for {world} processes")
        self.length = length
        self.seed = seed
        self.rank = rank
        self.world = world
        self.shuffle = shuffle
        self.epoch = 0
        self.position = 0

    def __len__(self) -> int:
        """Pairs of this rank in a whole epoch."""
        return self.length // self.world

    def __iter__(self) -> Iterator[int]:
        """The remaining indices of this epoch."""
        for index in self.upcoming():
            self.advance()
            yield index

    def upcoming(self) -> list[int]:
        """The remaining indices of this epoch, without advancing."""
        order = np.arange(self.length)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        mine = order[self.rank : len(self) * self.world : self.world]
        return mine[self.position :].tolist()

    def advance(self) -> None:
        """Count one index as taken."""
        self.position += 1
        if self.position == len(self):
            self.set_epoch(self.epoch + 1)

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch."""
        self.epoch = epoch
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        """The state to resume exactly here, the same for all ranks."""
        return {
            name: getattr(self, name)
            for name in ("length", "seed", "world", "shuffle", "epoch", "position")
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume another sampler's state. Raises InputError if its order was different."""
        for name in ("length", "seed", "world", "shuffle"):
            if state[name] != getattr(self, name):
                raise InputError(
                    f"the saved run had {name} {state[name]} in its order of pairs, "
                    f"this one has {getattr(self, name)}"
                )
        self.epoch = state["epoch"]
        self.position = state["position"]
