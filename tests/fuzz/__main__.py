"""`python -m tests.fuzz --inputs N --seed S`: a table of what N damaged files came to."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from lganet_fast.errors import LONGEST, InputError

from .mutations import MUTATIONS
from .readers import Reader, readers

SLOW = 10.0  # seconds from which on a reader counts as hanging
ROOM = 100  # MB that peak memory may grow by over all inputs, no file being over 6 MB
FAULTS = ("traceback", "hang", "silent difference", "bad message", "file left")


def same(one: Any, other: Any) -> bool:
    """Whether two results, arrays and text nested in sequences, are equal."""
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(np.array_equal(one, other))


def trial(reader: Reader, whole: Any, content: bytes, folder: Path) -> str:
    """Read a file of this content: "refused", "as before", "other" or one of FAULTS."""
    path = folder / reader.name
    path.write_bytes(content)
    started = time.monotonic()
    try:
        found = reader.read(path)
    except InputError as error:
        fine = len(str(error)) <= LONGEST and str(error).isprintable()
        outcome = "refused" if fine else "bad message"
    except BaseException:
        traceback.print_exc()
        outcome = "traceback"
    else:
        unchanged = same(found, whole)
        outcome = "as before" if unchanged else "silent difference" if reader.sealed else "other"
    if time.monotonic() - started > SLOW:
        outcome = "hang"
    path.unlink()
    return "file left" if os.listdir(folder) else outcome


def resealed(mutation: Any) -> bool:
    """Whether a mutation's file has right checksums, so that another result is right."""
    return mutation.__name__ in ("inside", "grow")


def fuzz(inputs: int, seed: int, quiet: bool = False) -> tuple[dict[str, Counter[str]], int]:
    """What became of so many inputs, by file, and by how many MB peak memory grew meanwhile.

    Every input that comes to a fault is kept in the current folder.
    """
    random = np.random.default_rng(seed)
    table: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made, folder = Path(place) / "made", Path(place) / "tried"
        made.mkdir()
        folder.mkdir()
        tried = list(readers(made))
        wholes = []
        for reader in tried:
            (folder / reader.name).write_bytes(reader.content)
            try:
                wholes.append(reader.read(folder / reader.name))
            except InputError as error:
                wholes.append(str(error))  # such as a checkpoint that holds one tensor of many
            (folder / reader.name).unlink()
        before = peak()
        rates = np.array([reader.rate for reader in tried])
        for turn in range(inputs):
            number = int(random.choice(len(tried), p=rates / rates.sum()))
            mutation = MUTATIONS[random.integers(len(MUTATIONS))]
            reader, content = tried[number], mutation(tried[number].content, random)
            outcome = trial(reader, wholes[number], content, folder)
            if outcome == "silent difference" and resealed(mutation):
                outcome = "other"
            if outcome in FAULTS:
                kept = Path(f"fuzz-{seed}-{turn}-{reader.name}")
                kept.write_bytes(content)
                print(f"{outcome}: {reader.read.__name__} of {kept}, {mutation.__name__}")
            row = f"{reader.name} {reader.read.__name__}".replace(" <lambda>", "")
            table.setdefault(row, Counter())[outcome] += 1
            if not quiet and turn % 500 == 499:
                print(f"{turn + 1} of {inputs}", file=sys.stderr)
        return table, peak() - before


def main() -> int:
    """Print the table; 1 where there is any fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table, grown = fuzz(options.inputs, options.seed)
    columns = ("refused", "as before", "other", *FAULTS)
    print(f"{'file':<26}" + "".join(f"{name:>19}" for name in columns))
    total: Counter[str] = Counter()
    for row, counts in sorted(table.items()):
        total += counts
        print(f"{row:<26}" + "".join(f"{counts[name]:>19}" for name in columns))
    print(f"{'all':<26}" + "".join(f"{total[name]:>19}" for name in columns))
    print(f"peak memory grew by {grown} MB")
    return int(any(total[name] for name in FAULTS) or grown > ROOM)


def peak() -> int:
    """Most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    sys.exit(main())
