"""`python -m benchmarks.scaling`: time and memory as functions of the volume, 32^3 to 512^3.

Each point is measured in a fresh process, with its peak memory. A straight line in the number of
voxels through the points so far predicts memory and time. Volumes that would not fit into free
memory are skipped. The line also gives the volumes that fill 8, 12, 24 and 80 GB, and is drawn
dashed where nothing was measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from lganet_fast import ops
from lganet_fast.runtime.files import atomic
from lganet_fast.runtime.machine import available_memory, set_threads

from . import ROOT, machine, networks, timing
from .case import Size, flow, image
from .memory import NotMeasuredError, highest
from .results import FOLDER, digits

SIDES = (32, 48, 64, 96, 128, 192, 256, 384, 512)
CARDS = (8, 12, 24, 80)  # GB
CALLS = 7  # timed calls after the first
ENOUGH = 10.0  # seconds after which no further call starts
USABLE = 0.9  # of free memory
Work = Callable[[Size, str], Callable[[], Any]]


def forward_and_backward(call: Callable[..., Any], *inputs: torch.Tensor) -> Callable[[], Any]:
    """The call with its gradients."""
    leaves = [x for x in inputs if x.requires_grad]

    def run() -> None:
        out = call(*inputs)
        torch.autograd.grad(out, leaves, out.detach())

    return run


def features(size: Size, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Two maps of 8 channels."""
    first, second = (image(size, torch.float32, device, 8, seed) for seed in (0, 1))
    return first, second


def volume(size: Size, device: str, seed: int = 0) -> torch.Tensor:
    """An image of one channel."""
    return image(size, torch.float32, device, seed=seed)


def network(size: Size, device: str) -> Callable[[], Any]:
    """Our network's forward."""
    model = networks.lean(size, device).eval()
    images = networks.pair(size, torch.float32, device)

    def run() -> None:
        with torch.no_grad():
            model(*images)

    return run


def both(call: Callable[..., Any], make: Callable[[Size, str], Sequence[torch.Tensor]]) -> Work:
    """The work of a call and its gradients."""
    return lambda size, device: forward_and_backward(call, *make(size, device))


WORKLOADS: dict[str, Work] = {
    "warp": both(ops.warp, lambda s, d: (volume(s, d), flow(s, d))),
    "compose": both(ops.compose, lambda s, d: (flow(s, d), flow(s, d))),
    "integrate": both(ops.integrate, lambda s, d: (flow(s, d),)),
    "correlate": both(ops.correlate, features),
    "local_ncc": both(ops.local_ncc, lambda s, d: (volume(s, d).detach(), volume(s, d, 1))),
    "gradient_loss": both(ops.gradient_loss, lambda s, d: (flow(s, d),)),
    "norm_act": both(ops.norm_act, lambda s, d: features(s, d)[:1]),
    "model": network,
}


def point(name: str, side: int, threads: int, device: str) -> dict[str, Any]:
    """One volume in a fresh process: side, seconds, bytes; or what went wrong."""
    words = ["--point", name, "--sides", str(side), "--threads", str(threads), "--device", device]
    command = [sys.executable, "-m", "benchmarks.scaling", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        text = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"work": name, "side": side, "failed": text[-1][:200]}
    found = json.loads(done.stdout.splitlines()[-1])
    return {"work": name, "side": side, **{k: digits(v) for k, v in found.items()}}


def measure(name: str, side: int, device: str) -> dict[str, float]:
    """Measure in this process: peak bytes, and median seconds of the calls after the first."""
    before = highest() if device == "cpu" else 0
    call = WORKLOADS[name]((side,) * 3, device)

    def once() -> float:
        timing.wait(device)
        started = time.perf_counter()
        call()
        timing.wait(device)
        return time.perf_counter() - started

    took = [once()]
    while len(took) <= CALLS and sum(took) < ENOUGH:
        took.append(once())
    peak = highest() - before if device == "cpu" else torch.cuda.max_memory_allocated()
    return {"seconds": statistics.median(took[1:] or took), "bytes": peak}


def line(points: Sequence[dict[str, Any]], of: str) -> tuple[float, float] | None:
    """Constant and slope per voxel from the two largest volumes; None below two points."""
    if len(points) < 2:
        return None
    (x0, y0), (x1, y1) = ((p["side"] ** 3, p[of]) for p in points[-2:])
    slope = (y1 - y0) / (x1 - x0)
    return y0 - slope * x0, slope


def at(fit: tuple[float, float], side: float) -> float:
    """The value of the line for a cube."""
    return fit[0] + fit[1] * side**3


def sweep(
    names: Sequence[str], sides: Sequence[int], threads: int, device: str, most: float
) -> Any:
    """Measure the points expected to fit into memory and to take at most `most` seconds."""
    points = []
    for name in names:
        own: list[dict[str, Any]] = []
        for side in sides:
            memory, seconds = line(own, "bytes"), line(own, "seconds")
            free = available_memory(torch.device(device))
            why = None
            if memory and free and at(memory, side) > USABLE * free:
                why = f"about {at(memory, side) / 1e9:.1f} GB are needed, {free / 1e9:.1f} free"
            elif seconds and at(seconds, side) > most:
                why = f"about {at(seconds, side):.0f} s are needed"
            found = {"work": name, "side": side, "failed": why}
            found = found if why else point(name, side, threads, device)
            points.append(found)
            print(json.dumps(found), flush=True)
            if "failed" in found:
                break
            own.append(found)
    return points


def draw(points: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Plot seconds and memory against voxels, dashed where nothing was measured."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes = figure.subplots(1, 2)
    for number, name in enumerate(dict.fromkeys(p["work"] for p in points)):
        own = [p for p in points if p["work"] == name and "failed" not in p]
        for ax, of, unit in zip(axes, ("seconds", "bytes"), (1.0, 1e9), strict=True):
            colour = f"C{number}"
            x, y = [p["side"] ** 3 for p in own], [p[of] / unit for p in own]
            ax.plot(x, y, "o-", color=colour, markersize=3, label=name)
            fit = line(own, of)
            if fit and own[-1]["side"] < SIDES[-1]:
                further = [own[-1]["side"] ** 3, SIDES[-1] ** 3]
                ends = [y[-1], at(fit, SIDES[-1]) / unit]
                ax.plot(further, ends, "--", color=colour, linewidth=0.9)
    for card in CARDS:
        axes[1].axhline(card, color="#888888", linewidth=0.7)
        axes[1].text(SIDES[0] ** 3, card, f"{card} GB", va="bottom", fontsize=7)
    for ax, label in zip(axes, ("seconds", "peak memory, GB"), strict=True):
        ax.set(xscale="log", yscale="log", xlabel="voxels", ylabel=label)
        ax.set_xticks([s**3 for s in SIDES], [f"{s}³" for s in SIDES], fontsize=7, rotation=45)
        ax.minorticks_off()
    axes[0].legend(fontsize=7)
    figure.suptitle(f"{title}\ndashed: extrapolated, not measured", fontsize=7)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=110)


def largest(points: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """For each work, the side of the cube that fills the memory of each card, by its line."""
    found: dict[str, dict[str, int]] = {}
    for name in dict.fromkeys(p["work"] for p in points):
        fit = line([p for p in points if p["work"] == name and "failed" not in p], "bytes")
        if fit and fit[1] > 0:
            found[name] = {
                f"{card} GB": int(max(0.0, (card * 1e9 - fit[0]) / fit[1]) ** (1 / 3))
                for card in CARDS
            }
    return found


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument(
        "--works", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), help="which"
    )
    parser.add_argument("--sides", nargs="+", type=int, default=SIDES, help="sides of the cubes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    parser.add_argument("--most", type=float, default=120, help="longest call, seconds")
    parser.add_argument(
        "--results", type=Path, default=FOLDER, metavar="DIR", help="where to write"
    )
    parser.add_argument("--point", choices=WORKLOADS, help=argparse.SUPPRESS)
    return parser


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, and write <machine>-scaling.json and .png."""
    given = parser().parse_args(words)
    threads = set_threads(given.threads)
    if given.point:
        print(json.dumps(measure(given.point, given.sides[0], given.device)))
        return
    points = sweep(given.works, given.sides, threads, given.device, given.most)
    stamp = machine.stamp()
    found = {"machine": stamp, "points": points, "largest_side": largest(points)}
    given.results.mkdir(parents=True, exist_ok=True)
    path = given.results / f"{machine.name(stamp)}-scaling.json"
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(points, machine.line(stamp), path.with_suffix(".png"))
    for name, sides in found["largest_side"].items():
        fits = ", ".join(f"{side}^3 in {card}" for card, side in sides.items())
        print(f"{name}: {fits} (extrapolated from the two largest volumes)")
    print(f"written: {path}, {path.with_suffix('.png')}")


if __name__ == "__main__":
    try:
        main()
    except NotMeasuredError as error:
        sys.exit(str(error))
