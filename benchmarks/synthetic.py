"""`python -m benchmarks.synthetic`: how fast synthetic pairs are drawn, and what they look like.

Seconds a pair on the chosen device, beside those of a training step of the networks that would
take them. With `--picture FILE` 16 pairs are drawn as a picture: the fixed and the moving image of
each, the middle plane of the last axis.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from lganet_fast import config
from lganet_fast.data.synthetic import draw
from lganet_fast.data.synthetic.noise import Source
from lganet_fast.models import create
from lganet_fast.runtime.machine import choose_device, set_threads
from lganet_fast.training.batch import collate
from lganet_fast.training.objective import Objective

NETWORKS = ("lean", "lganetpp")
SAMPLES = 16
ROW = 4  # pairs beside each other


def seconds(work, device: torch.device, times: int) -> float:
    """Median seconds of a piece of work, after a first time."""
    found = []
    for _ in range(times + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - started)
    return statistics.median(found[1:])


def step(name: str, settings, device: torch.device):
    """A training step of a network on a synthetic pair."""
    from lganet_fast.data import open_split

    batch = collate([open_split(settings, "val")[0]], device)
    network = create(name, settings.synthetic.size).to(device).train()
    objective, optimizer = Objective(settings.loss), torch.optim.Adam(network.parameters())

    def run() -> None:
        objective(network(batch.moving, batch.fixed), batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def picture(path: Path, settings) -> None:
    """Write the picture."""
    import matplotlib.image

    tiles = []
    for seed in range(SAMPLES):
        pair = draw(Source(seed), settings.synthetic)
        middle = pair.fixed.shape[-1] // 2
        both = [x[0, 0, :, :, middle].T.flip(0).numpy() for x in (pair.fixed, pair.moving)]
        tiles.append(np.pad(np.concatenate(both, 1), ((2, 2), (2, 6)), constant_values=1.0))
    rows = [np.concatenate(tiles[k : k + ROW], 1) for k in range(0, SAMPLES, ROW)]
    matplotlib.image.imsave(path, np.concatenate(rows), cmap="gray", vmin=0, vmax=1)


def main() -> None:
    """Print the times, or write the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synthetic", description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--times", type=int, default=5, help="measurements of each")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write the picture instead")
    given = parser.parse_args()
    settings = config.load("synthetic")
    if given.picture is not None:
        picture(given.picture, settings)
        return
    set_threads(given.threads)
    device = choose_device(given.device)
    source = Source(0, device)
    size = "x".join(map(str, settings.synthetic.size))
    took = seconds(lambda: draw(source, settings.synthetic), device, given.times)
    print(f"a pair of {size}: {took:.2f} s")
    for name in NETWORKS:
        took = seconds(step(name, settings, device), device, given.times)
        print(f"a step of {name}: {took:.2f} s")


if __name__ == "__main__":
    main()
