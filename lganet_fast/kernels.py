"""Stands for lganet_fast.kernels in a source tree, where that folder lies beside this package.

In an install the folder is inside the package, and Python takes a folder before a file.
"""

from pathlib import Path

__path__ = [str(Path(__file__).parent.parent / "kernels")]
