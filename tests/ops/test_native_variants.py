"""The compiled operators as other processors and larger volumes take them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ops_checks import needs_native

pytestmark = needs_native
HERE = Path(__file__).parent
FILES = ("compose", "correlate", "integrate", "local_ncc", "warp")
COMPILED = [
    *(HERE / f"test_native_{name}.py" for name in FILES),
    *(
        HERE / f"test_{name}.py"
        for name in (
            "convolve",
            "gradient_loss",
            "invert",
            "mutual_information",
            "neighbour_attention",
            "norm_act",
            "resize",
        )
    ),
]


@pytest.mark.parametrize(
    "variant",
    [{"LGANET_FAST_ISA": "baseline"}, {"LGANET_FAST_ISA": "avx2", "LGANET_FAST_INDEX": "64"}],
    ids=lambda variant: ",".join(map("=".join, variant.items())),
)
def test_compiled_against_reference(variant):
    """In a process of its own: the choice is made once, when an operator first runs."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += [
        "-k",
        "against_reference or values_and_gradient or test_solves",
        *map(str, COMPILED),
    ]
    environment = os.environ | variant | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(  # elsewhere than beside the sources, which may not be what is installed
        command, cwd=HERE, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
