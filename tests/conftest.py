"""The order of the tests: files that take longest come first.

So two processes that take one file after another (`--dist loadfile`) end at about the same time.
"""

from __future__ import annotations

import pytest

LONGEST = (
    "test_triton_interpreted.py",
    "test_cuda_host.py",
    "test_native_variants.py",
    "test_lganetpp.py",
    "test_peers.py",
    "test_kills.py",
    "test_build.py",
    "test_training.py",
    "test_register_sharded.py",
    "test_atlas.py",
    "test_methods.py",
    "test_tracing.py",
    "test_benchmarks.py",
    "test_notebooks.py",
    "test_cli.py",
    "test_reproduce.py",
    "test_lganet.py",
    "test_published.py",
    "test_site.py",
    "test_warnings.py",
    "test_graphed_operators.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
