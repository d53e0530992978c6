"""Configurations of the convolution, ranked by a model of the time on a multiprocessor."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from .launch import padded


class Config(NamedTuple):
    """The forward: voxels per group, groups, numbers per step and outputs of a tile; resources."""

    group: int
    rows: int
    step: int
    outputs: int
    warps: int
    stages: int
    precision: str

    def arguments(self) -> dict[str, Any]:
        """What the kernel is launched with."""
        return {
            "GROUP": self.group,
            "BLOCK_M": self.rows,
            "BLOCK_K": self.step,
            "BLOCK_O": self.outputs,
            "PRECISION": "ieee" if self.precision == "half" else self.precision,
            "num_warps": self.warps,
            "num_stages": self.stages,
        }


class WeightConfig(NamedTuple):
    """The weight gradient: (tap, input) pairs, outputs and voxels per step of a tile; resources."""

    pairs: int
    outputs: int
    voxels: int
    warps: int
    stages: int
    precision: str

    def arguments(self) -> dict[str, Any]:
        """What the kernel is launched with."""
        return {
            "BLOCK_M": self.pairs,
            "BLOCK_N": self.outputs,
            "BLOCK_V": self.voxels,
            "PRECISION": "ieee" if self.precision == "half" else self.precision,
            "num_warps": self.warps,
            "num_stages": self.stages,
        }

    def programs(self, inputs: int, outputs: int) -> int:
        """The number of tiles of a gradient."""
        return 9 * -(-3 * inputs // self.pairs) * -(-outputs // self.outputs)

    def splits(self, inputs: int, outputs: int, batch: int, voxels: int) -> int:
        """The number of parts into which the voxels of an item are divided.

        Enough for 1024 programs, with at least 16 steps each and at most 2^24 numbers in all. It
        depends only on sizes, so sums are repeatable.
        """
        wanted = -(-1024 // (self.programs(inputs, outputs) * max(batch, 1)))
        room = (1 << 24) // (27 * inputs * outputs * max(batch, 1))
        return max(1, min(wanted, voxels // (16 * self.voxels), room))


SHARED = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}  # KiB of a block at most
MOST = 6  # configurations of a call
# Products per clock of a multiprocessor, float16 with sums in float32, by major capability.
# Consumer cards (8.6, 8.9, 12.0) have a quarter.
PRODUCTS = {8: 1024, 9: 2048, 10: 2048, 12: 256}
RATE = {"half": 1.0, "tf32": 1 / 2, "tf32x3": 1 / 6, "ieee": 1 / 24}  # relative to PRODUCTS
STEP = 20  # clocks of overhead per step of a program
LOADED = (
    50.0  # bytes loaded per clock, limited by the first-level cache and by address instructions
)


def precisions(kind: str) -> tuple[str, ...]:
    """The values of tl.dot's input_precision that a kind of product can take."""
    return {"tf32": ("tf32",), "float32": ("tf32x3", "ieee")}.get(kind, ("half",))


def products(precision: str, capability: tuple[int, int]) -> float:
    """Products per clock of a multiprocessor."""
    major = capability[0] if capability[0] in PRODUCTS else max(PRODUCTS)
    full = 256 if capability in ((8, 6), (8, 9)) else PRODUCTS[major]
    return full * RATE[precision] if precision != "ieee" else 64.0


def shared(capability: tuple[int, int]) -> int:
    """Bytes of shared memory that a block may have."""
    known = SHARED.get(10 * capability[0] + capability[1], min(SHARED.values()))
    return known * 1024


def clocks(config: Config, inputs: int, outputs: int, capability: tuple[int, int]) -> float:
    """Clocks of a multiprocessor per voxel, by the model: products and loads overlap."""
    size = 2 if config.precision == "half" else 4
    steps = 9 * -(-(config.group + 2) * inputs // config.step)
    blocks = -(-outputs // config.outputs)
    columns = config.group * config.outputs
    macs = steps * config.step * columns * config.rows
    loads = steps * config.step * (config.rows + columns) * size
    busy = (macs / products(config.precision, capability), loads / LOADED)
    total = max(busy) + 0.3 * min(busy) + STEP * steps
    return blocks * total / (config.rows * config.group)


@lru_cache(None)
def configs(
    inputs: int, outputs: int, kind: str, capability: tuple[int, int]
) -> tuple[Config, ...]:
    """At most six configurations for `inputs` to `outputs` channels, ranked by the model.

    kind: "float16", "bfloat16", "tf32" or "float32". capability: of the device, such as (9, 0).
    """
    found: list[Config] = []
    for precision, most in zip(precisions(kind), (4, 2), strict=False):
        some = candidates(inputs, outputs, precision, capability)
        some.sort(key=lambda config: clocks(config, inputs, outputs, capability))
        kinds: dict[tuple[int, int], int] = {}
        kept = []
        for config in some:
            tile = (config.group, config.outputs)
            kinds[tile] = kinds.get(tile, 0) + 1
            if kinds[tile] <= 2:
                kept.append(config)
        found += kept[: most if kind == "float32" else MOST]
    return tuple(found)


def candidates(
    inputs: int, outputs: int, precision: str, capability: tuple[int, int]
) -> list[Config]:
    """All configurations whose sums fit the registers and whose tiles half the shared memory."""
    size = 2 if precision == "half" else 4
    found = []
    # Registers of a thread for the left side, and stages, so that ptxas spills none: wgmma reads
    # that side from shared memory, the newest devices' products take the most.
    newest = capability[0] >= 10 and precision == "tf32"
    room = 32 if capability[0] == 9 else 8 if newest or capability[0] == 12 else 16
    deep = 2 if newest else 4
    whole = padded(outputs, 8)
    blocks = [o for o in (8, 16, 32, 64, 128) if o == whole or 16 <= o < whole]
    for group in (1, 2, 4):
        for block in blocks:
            for rows in (32, 64, 128, 256):
                for step in (16, 32) if size == 4 and precision != "tf32" else (16, 32, 64):
                    columns = group * block
                    warps = 8 if rows * columns > (8192 if group == 1 else 4096) else 4
                    most = {"ieee": 16, "tf32x3": 32}.get(precision, 64 if group == 1 else 32)
                    sums = rows * columns / (32 * warps)
                    held = rows * step * size / (128 * warps)  # registers of a thread
                    if columns > 128 or not 4 <= sums <= most or held > room:
                        continue
                    stage = (rows + columns) * step * size
                    stages = min(deep, shared(capability) // 2 // stage)
                    if stages >= 2:
                        how = (group, rows, step, block, warps, stages, precision)
                        found.append(Config(*how))
    return found


@lru_cache(None)
def weight_configs(
    inputs: int, outputs: int, kind: str, capability: tuple[int, int]
) -> tuple[WeightConfig, ...]:
    """The same for the weight gradient."""
    found = []
    for precision in precisions(kind):
        size = 2 if precision == "half" else 4
        some = []
        for pairs in (32, 64, 128):
            for block in (o for o in (8, 16, 32, 64, 128) if o <= padded(outputs, 8)):
                for voxels in (32, 64):
                    warps = 8 if pairs * block > 4096 else 4
                    stage = (pairs + block) * voxels * size
                    most = 16 if precision == "ieee" else 32
                    if pairs * block / (32 * warps) > most or 3 * stage > shared(capability) // 2:
                        continue
                    config = WeightConfig(pairs, block, voxels, warps, 3, precision)
                    tiles = config.programs(inputs, outputs)
                    busy = (
                        pairs * block * voxels / products(precision, capability),
                        stage / LOADED,
                    )
                    cost = tiles * (max(busy) + 0.3 * min(busy)) / voxels
                    some.append((cost, -voxels, config))
        some.sort(key=lambda one: one[:2])
        found += [config for *_, config in some[: 4 if kind == "float32" else MOST]]
    return tuple(found[:MOST])
