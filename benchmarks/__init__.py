"""Speed and memory of every operation, the network, training and registration.

`pytest benchmarks` measures the package that is installed; the sources beside this folder, which
hold nothing compiled unless they were built in place, are measured where none is installed.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

if sys.path[0] in ("", str(ROOT)):
    sys.path.append(sys.path.pop(0) or str(ROOT))
