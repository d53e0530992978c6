"""Reports without a registration."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lganet_fast.registration.settings import Settings, Sources
from lganet_fast.report.contents import (
    Backend,
    Input,
    InverseConsistency,
    Jacobian,
    LabelRow,
    LabelScores,
    Report,
    SimilarityScores,
)
from lganet_fast.volumes import nifti

ROWS = [LabelRow(1, 0.5, 0.75, 4.0, 2.0), LabelRow(2, 0.5, 0.75, 4.0, float("nan"))]
SCORES = LabelScores("nearest", 0.5, 0.75, 4.0, 2.0, 0, 1, [], [], [], ROWS)


def report_of(inputs: dict[str, Input], settings: dict[str, Any], **other: Any) -> Report:
    """A report with synthetic values for the fields not given."""
    fields: dict[str, Any] = {
        "affine_matrix_ras_mm": [[float(i == j) for j in range(4)] for i in range(4)],
        "versions": {"lganet_fast": "1.2.3", "torch": "9.9"},
        "backend": Backend("cpu", 2, {"warp": "native"}),
        "network": None,
        "similarity": SimilarityScores("lncc", 0.25, 0.5),
        "jacobian": Jacobian(folded_percent=0.0123, sdlogj=0.0456, min=-0.1, max=2.5),
        "inverse_consistency_mm": InverseConsistency(0.011, 0.22, float("nan"), 0.0),
        "labels": None,
        "points": None,
        "folds": None,
        "verdict": "good",
        "reasons": [],
        "warnings": [],
        "seconds": {"read": 12.0, "total": 12.3456},
        "peak_memory_mb": 98765.0,
    }
    return Report(inputs=inputs, settings=settings, **{**fields, **other})


def report_on(sources: Sources, settings: Settings, **other: Any) -> Report:
    """The same for existing files."""
    inputs = {role: Input(**nifti.describe(x, role)) for role, x in sources.given().items()}
    return report_of(inputs, asdict(settings), **other)
