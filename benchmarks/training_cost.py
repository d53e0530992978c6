"""`python -m benchmarks.training_cost`: the table COST of lganet_fast/reproduction/estimate.py.

Prints, for each trained row of the tables, the CPU time of a training step per voxel divided by
that of the estimate's convolution, both on noise and on one thread. A network that pads 48^3 voxels
is measured at its padded size.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch

from lganet_fast import config as configs
from lganet_fast.config.loading import Config
from lganet_fast.reproduction.estimate import SIDE, convolution
from lganet_fast.reproduction.targets import TARGETS
from lganet_fast.training.batch import Batch
from lganet_fast.training.objective import Objective
from lganet_fast.training.trainer import build_network

SIZE = (SIDE, SIDE, SIDE)
ROUNDS = 3  # the fastest counts


def cpu_seconds(call: Callable[[], object]) -> float:
    """The least CPU time of a few calls, after one that is not timed."""
    found = []
    for _ in range(1 + ROUNDS):
        began = time.process_time()
        call()
        found.append(time.process_time() - began)
    return min(found[1:])


def step_of(config: Config, size: tuple[int, ...]) -> Callable[[], object]:
    """Forward, loss and backward of a batch of one pair."""
    objective = Objective(config.loss)
    network = objective.called(build_network(config, size).train())
    shape = (1, 1, *size)
    maps = torch.ones(shape, dtype=torch.int32)
    fixed, moving = torch.rand(shape), torch.rand(shape)
    batch = Batch(["noise"], fixed, moving, maps, maps)

    def step() -> None:
        loss, _ = objective(network(moving, fixed), batch)
        loss.backward()  # type: ignore[no-untyped-call]

    return step


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    unit = cpu_seconds(convolution(torch.device("cpu")))
    rows = {row.name: row for name in ("table1", "table6") for row in TARGETS[name].rows}
    for row in rows.values():
        if row.trained:
            config = configs.load("lpba40", row.settings)
            with torch.device("meta"):
                size = build_network(config, SIZE).padded_size(SIZE)
            voxels = math.prod(size) / math.prod(SIZE)
            cost = cpu_seconds(step_of(config, size)) / voxels / unit
            print(f'    "{row.name}": {cost:.0f},', flush=True)


if __name__ == "__main__":
    main()
