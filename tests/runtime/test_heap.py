"""How malloc treats large tensors, in a process of its own."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import os
import numpy as np
from lganet_fast.runtime import malloc

def held():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

def left(megabytes):
    before = held()
    x = np.ones(megabytes << 17)
    del x
    return held() - before

malloc.keep()
kept = left(100)
malloc.give_back()
print(kept, left(300))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it needs glibc")
def test_memory_is_kept_and_given_back():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    kept, rest = map(int, done.stdout.split())
    assert kept >= 95
    assert rest <= 5
