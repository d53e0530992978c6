"""`python -m benchmarks.training_cost`: the table COST of lganet_fast/reproduction/estimate.py.

Prints, for each trained row of the tables, the CPU time of a training step over that of the
estimate's convolution, both on noise of 48^3 voxels and on one thread.
"""

from __future__ import annotations

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
ROUNDS = 3


def cpu_seconds(call: Callable[[], object]) -> float:
    """The least CPU time of a few calls, after one that is not timed."""
    found = []
    for _ in range(1 + ROUNDS):
        began = time.process_time()
        call()
        found.append(time.process_time() - began)
    return min(found[1:])


def step_of(config: Config) -> Callable[[], object]:
    """Forward, loss and backward of a batch of one pair."""
    objective = Objective(config.loss)
    network = objective.called(build_network(config, SIZE).train())
    shape = (1, 1, *SIZE)
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
            step = step_of(configs.load("lpba40", row.settings))
            print(f'    "{row.name}": {cpu_seconds(step) / unit:.0f},', flush=True)


if __name__ == "__main__":
    main()
