"""Atlas mode: a network's features of a fixed image are kept for further pairs with that image."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from .graphed import kind_of
from .weights import Weights


class Atlas:
    """The last fixed image of a network, and the network's results for it.

    They are reused if the next fixed image has the same values, no weight has been written to or
    replaced, and everything that selects the kernels is the same. They are not kept if the network
    depends on anything else (`Weights.stand`). A copy, by deepcopy or pickle, is empty. On CUDA
    they are valid for one stream.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.weights: Weights | None = None
        self.key: Hashable = None
        self.fixed: Tensor | None = None
        self.prepared: Sequence[Tensor] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return Atlas, ()

    @torch.no_grad()
    def of(self, network: Any, fixed: Tensor) -> Sequence[Tensor]:
        """network.prepare(fixed), computed where it is not known. Not to be written to."""
        with self.lock:
            if self.weights is None or not self.weights.are_of(network):
                self.weights = Weights(network)
            stand = self.weights.stand()
            if stand is None or network.training:
                self.forget()
                return network.prepare(fixed)
            stream = torch.cuda.current_stream(fixed.device) if fixed.is_cuda else None
            key = (stand, kind_of([fixed]), stream)
            if key != self.key or self.fixed is None or not torch.equal(self.fixed, fixed):
                self.forget()  # its memory is free for what comes
                self.prepared = network.prepare(fixed)
                self.key, self.fixed = key, fixed.clone()
            return self.prepared

    def forget(self) -> None:
        """Drop what is kept."""
        self.key, self.fixed, self.prepared = None, None, ()
