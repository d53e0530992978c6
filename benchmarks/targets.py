"""The required ratios, measured in one run, and the goals.

They were chosen on two cores with AVX-512 and bfloat16 instructions. Ratios in bfloat16 are
required only on machines with these instructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .case import IXI_OASIS, IXI_WHOLE, LPBA40, Size, shown
from .results import Row

SLACK = 0.8  # the guard accepts this fraction of a required ratio


@dataclass(frozen=True)
class Target:
    """One requirement: `way` is better than the case's first way by `ask`, in time or in memory.

    aim: the goal. guard: whether the guard checks it. guard_size: a smaller size for the guard, if
    its own takes too long.
    """

    operation: str
    size: Size
    mode: str
    ask: float
    aim: float
    of: str = "time"
    way: str = "native"
    type: str = "float32"
    detail: str = ""
    guard: bool = True
    guard_size: Size | None = None

    @property
    def title(self) -> str:
        """Its name in tables."""
        words = (self.operation, self.detail, shown(self.size), self.type, self.mode, self.way)
        return ", ".join(word for word in words if word)

    def about(self, row: Row) -> bool:
        """Whether the target is about the row."""
        own = (self.operation, shown(self.size), self.detail, self.type, self.mode, self.way)
        return own == (row.operation, row.size, row.detail, row.type, row.mode, row.way)

    def reached(self, row: Row) -> float | None:
        """The ratio of the row; None if it was not measured."""
        return row.ratio if self.of == "time" else row.memory_ratio

    def missed(self, row: Row) -> str | None:
        """The message of the guard if the ratio is below SLACK times the requirement, else None."""
        found, least = self.reached(row), SLACK * self.ask
        if found is not None and found >= least:
            return None
        got = "nothing measured" if found is None else f"{found:.2f}x"
        return f"{self.title}, {self.of}: must be at least {least:.2f}x {row.baseline}, got {got}"


CORRELATED: Size = (48, 56, 40)
VELOCITY: Size = (96, 112, 96)
SMALL: Size = (48, 48, 48)

TARGETS = (
    Target("model", IXI_OASIS, "forward", 2.4, 4, way="auto"),
    Target("model", LPBA40, "forward", 3, 4, way="auto", guard=False),
    Target("model", IXI_OASIS, "forward", 2, 3, way="auto", type="bfloat16"),
    Target("model", LPBA40, "forward", 3, 4, of="memory", way="auto", guard=False),
    Target("training_step", IXI_OASIS, "step", 2.5, 3.5, way="auto", guard_size=SMALL),
    Target("training_step", IXI_OASIS, "step", 2, 2, way="blocks", guard=False),
    Target("training_step", IXI_OASIS, "step", 3, 5, of="memory", way="blocks", guard=False),
    Target("warp", IXI_WHOLE, "forward", 4, 6),
    Target("warp", IXI_WHOLE, "full", 3, 5),
    Target("integrate", VELOCITY, "forward", 5, 8, detail="7 steps"),
    Target("integrate", VELOCITY, "full", 4, 6, detail="7 steps"),
    Target("correlate", CORRELATED, "forward", 4, 8, detail="32 channels"),
    Target("correlate", CORRELATED, "full", 8, 15, detail="32 channels"),
    Target("local_ncc", LPBA40, "forward", 15, 30, detail="window 9", guard_size=IXI_OASIS),
    Target("local_ncc", LPBA40, "full", 40, 80, detail="window 9", guard_size=IXI_OASIS),
    Target(
        "register",
        (160, 192, 160),
        "command",
        3,
        10,
        way="auto",
        detail="LPBA40 S02 to S01",
        guard=False,
    ),
)

GUARDED = tuple(replace(t, size=t.guard_size or t.size) for t in TARGETS if t.guard)


def of_row(row: Row, targets: Sequence[Target] = TARGETS) -> list[Target]:
    """The targets about a row."""
    return [target for target in targets if target.about(row)]
