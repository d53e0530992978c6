"""Public names of a package, each loaded from its module on first use.

So `import lganet_fast` and the command start without loading torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

ROOT = f"{__package__}."
MOVED = {  # modules' former names, and where they are now
    "cohort": "registration.cohort",
    "data.case": "data.pair_files",
    "demo": "registration.demo",
    "fieldfiles": "transforms.codecs",
    "files": "runtime.files",
    "formats": "transforms.formats",
    "grid": "volumes.grid",
    "inverse": "transforms.inverse",
    "io": "volumes.nifti",
    "jacobian": "transforms.jacobian",
    "optimize": "registration.optimiser",
    "points": "volumes.points",
    "qc": "report.page",
    "resample": "volumes.resample",
    "sampling": "volumes.sampling",
    "settings": "registration.settings",
    "surfaces": "metrics.surface_distance",
    "transform": "transforms.field",
}


def attach(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package; homes: for each name, the module inside that has it."""

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f".{homes[name]}", package), name)
        setattr(sys.modules[package], name, value)
        return value

    return load


class MovedModules(MetaPathFinder, Loader):
    """Finds modules of MOVED under their former names: the same module, not a copy."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of a moved module."""
        if fullname.removeprefix(ROOT) not in MOVED or not fullname.startswith(ROOT):
            return None
        return spec_from_loader(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module at its new place."""
        module = import_module(ROOT + MOVED[spec.name.removeprefix(ROOT)])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restore the module's own spec; it has run already."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state
