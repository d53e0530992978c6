"""`python -m benchmarks.gpu --out DIR --deadline 450`: all measurements on a GPU, and a report.

It runs from a source tree, without network access, and needs only PyTorch, Triton and NumPy. Each
phase runs in its own process with its own time limit; a phase that fails, crashes or hangs is
recorded and skipped. The report is rewritten after every phase. There is no user input.
"""

from .command import parser

__all__ = ["parser"]
