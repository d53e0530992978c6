"""`python -m benchmarks.gpu --out DIR --deadline 450`: one visit to a GPU, and a report of it.

It runs from a source tree, without network, on what PyTorch, Triton and NumPy bring. Each phase is
a process of its own with its own limit; what fails, dies or hangs is recorded and passed over, and
the report is written anew after every phase. It never waits for input.
"""

from .command import parser

__all__ = ["parser"]
