"""Expected times of convolutions: floors from data sheets, and a model of a kernel.

The model is the larger of bytes at 85 % of the data sheet's rate and operations at the share of the
matrix units' rate that `mma.sync` reaches (62 % of Hopper's) by three quarters, channels padded to
eight and a sixth of the rows lost to halos. float32 without TF32 counts as three products in TF32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..count import Conv
from .paths import Problem

REACHED, HALO, MEMORY, LAUNCH = 0.62 * 0.75, 7 / 6, 0.85, 2e-6


@dataclass(frozen=True)
class Card:
    """Rates of a data sheet: bytes per second, dense operations per second by type."""

    bytes: float
    operations: Mapping[str, float]

    def floor(self, problem: Problem) -> float:
        """The minimum of seconds: every map moved once, every operation done once."""
        rate = self.operations[problem.type]
        return max(problem.bytes / self.bytes, problem.conv.operations / rate)

    def predicted(self, problem: Problem) -> float:
        """The seconds of the model."""
        conv = problem.conv
        inputs, outputs = (-(-n // 8) * 8 for n in (conv.inputs, conv.outputs))
        operations = HALO * Conv(conv.operation, inputs, outputs, conv.shape).operations
        rate = REACHED * self.operations[problem.type]
        return max(problem.bytes / self.bytes / MEMORY, operations / rate) + LAUNCH


HOPPER = {"float16": 989.4e12, "bfloat16": 989.4e12, "tf32": 494.7e12, "float32": 494.7e12 / 3}
CARDS = {"H100 SXM": Card(3350e9, HOPPER), "H200": Card(4800e9, HOPPER)}
