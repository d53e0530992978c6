"""The questions that a run on a GPU must answer, with the expected answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Question:
    """One question. predicted: the expected answer. where: the path of the measured answer in the
    report's phases; a name with a star matches the first one.
    """

    text: str
    predicted: str
    where: Sequence[str] = ()

    def told(self) -> dict[str, Any]:
        """The question for a file."""
        return {"question": self.text, "predicted": self.predicted, "where": list(self.where)}

    def answer(self, phases: Mapping[str, Any]) -> Any:
        """The measured answer, or None."""
        found: Any = phases
        for step in self.where:
            if not isinstance(found, Mapping):
                return None
            names = [k for k in found if k == step or (step.endswith("*") and step[:-1] in k)]
            if not names:
                return None
            found = found[names[0]]
        return found


def timing(group: str, way: str, what: str = "median ms") -> tuple[str, ...]:
    """The path of a time in the report."""
    return ("timing", "groups", group, "ways", way, what)


SMALL, LARGE = "96x112x80", "144x176x144"
QUESTIONS = (
    Question("What does the card copy, in bytes per second?", "2.8e12 to 4.3e12", ("card", "copy")),
    Question("Matrix products in TF32?", "3.5e14 to 4.5e14", ("card", "products", "tf32")),
    Question("And in bfloat16?", "6e14 to 8e14", ("card", "products", "bfloat16")),
    Question("A launch from Python, microseconds?", "8 to 15", ("card", "launch us")),
    Question("Do all kernels agree with float64?", "yes", ("kernels", "wrong")),
    Question("Are repeats equal bit for bit?", "yes", ("kernels", "not repeating")),
    Question("Is a graph's flow the eager one, bit for bit?", "yes", ("network", "graph")),
    Question("Can `integrate` be captured?", "yes", ("network", "integrate captured")),
    Question("Which path wins how many shapes?", "own at 8 to 48 channels", ("tune", "wins")),
    Question("What does cudnn.benchmark gain?", "10 to 30 %", ("tune", "cudnn by measuring")),
    Question("What do the best of all paths save?", "half", ("tune", "forward ms")),
    Question(
        "The published forward, small, float32?",
        "43 ms on an H200",
        timing(f"{SMALL} float32 forward", "published"),
    ),
    Question(
        "Ours operator by operator, small, float32?",
        "40 ms, launch-bound",
        timing(f"{SMALL} float32 forward", "eager"),
    ),
    Question(
        "Ours as a graph, small, float32?",
        "18 ms, with own kernels 9",
        timing(f"{SMALL} float32 forward", "graph"),
    ),
    Question(
        "Ours as a graph, small, bfloat16?",
        "12 ms, with own kernels 5.5",
        timing(f"{SMALL} bfloat16 forward", "graph"),
    ),
    Question(
        "Ours as a graph, large, float32?",
        "58 ms, with own kernels 30",
        timing(f"{LARGE} float32 forward", "graph"),
    ),
    Question(
        "Ours as a graph, large, bfloat16?",
        "40 ms, with own kernels 15",
        timing(f"{LARGE} bfloat16 forward", "graph"),
    ),
    Question(
        "The whole network in float16, large?",
        "15 ms with own kernels",
        timing(f"{LARGE} float16 forward", "half"),
    ),
    Question(
        "Is a compiled published network a harder baseline?",
        "yes, at the small size",
        timing(f"{SMALL} float32 forward", "published compiled"),
    ),
    Question(
        "A training step, large, float32?",
        "398 ms, with own kernels 120",
        timing(f"{LARGE} float32 step", "eager"),
    ),
    Question(
        "A training step, large, bfloat16?",
        "224 ms, with own kernels 65",
        timing(f"{LARGE} bfloat16 step", "eager"),
    ),
    Question(
        "Where does an eager forward's time go, large, float32?",
        "65 % convolutions, 9 % biases and residuals, 8 % attention, 8 % norms",
        ("profile", "runs", f"{LARGE} float32 eager", "operators"),
    ),
    Question(
        "How much of a small eager forward is gaps?",
        "over half",
        ("profile", "runs", f"{SMALL} float32 eager", "gaps"),
    ),
    Question(
        "Registration without weights, seconds?", "5.5, search 1", ("register", "seconds each")
    ),
)
