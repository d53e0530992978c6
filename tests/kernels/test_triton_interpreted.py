"""The Triton kernels in Triton's interpreter, and everything where there is no Triton.

Both run in a process of their own: Triton decides at import whether it interprets, and what has
been imported cannot be hidden.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lganet_fast.ops import triton

HERE = Path(__file__).parent
HIDDEN = """
import sys
from importlib.machinery import PathFinder


class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, *where):
        return None if name.split(".")[0] == "triton" else super().find_spec(name, *where)


sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
import pytest

sys.exit(pytest.main(sys.argv[1:]))
"""


def check(start, *tests, **variables):
    """Run some of the tests in another process; returns what pytest printed."""
    environment = os.environ | variables
    environment["PYTHONPATH"] = os.pathsep.join(map(str, [HERE, *sys.path]))
    command = [sys.executable, *start, "-q", "-rs", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command, cwd=HERE, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.skipif(not triton.INSTALLED, reason="triton is not installed")
def test_kernels_in_the_interpreter():
    checks = sorted(HERE.glob("interpreted/check_*.py"))
    check(["-m", "pytest"], *map(str, checks), TRITON_INTERPRET="1")


def test_without_triton():
    """Imports and tests pass, and what is skipped says why."""
    names = ("attention", "convolve", "correlate", "maps", "resources", "interpreted")
    tests = [str(HERE / f"test_triton_{name}.py") for name in names]
    output = check(["-c", HIDDEN], *tests, "-k", "not without_triton and not import_triton")
    assert output.count("triton is not installed") == 2
