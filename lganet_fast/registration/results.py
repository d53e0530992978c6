"""The files of a registration: volumes, fields, page and report, all or none."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from ..report.contents import Report
from ..runtime.device import fetched
from ..runtime.files import staged_folder
from ..runtime.json_files import write_report_json
from ..runtime.reading import reading
from ..volumes import nifti
from .pair import Pair
from .settings import (
    FURTHER,
    INITIALS,
    INVERSE_WARP,
    OUTPUTS,
    PAGE,
    REPORT,
    WARP,
    WARPED,
    WARPED_LABELS,
    Run,
    Settings,
    Sources,
    check_path,
)
from .stages import Moved, Quality


def staging(run: Run, sources: Sources, settings: Settings) -> AbstractContextManager[Path | None]:
    """The staging folder of the results; None if no results are written."""
    if run.out is None:
        return nullcontext()
    return staged_folder(
        check_path("out", run.out),
        (*OUTPUTS, *FURTHER),
        expected=None if run.overwrite else run.outputs(sources),
        inputs=paths_of(sources, settings),
    )


def paths_of(sources: Sources, settings: Settings) -> list[str | os.PathLike[str]]:
    """The files that a registration reads."""
    start = None if settings.initial in INITIALS else settings.initial
    given: list[Any] = [
        *sources.given().values(),
        *sources.points().values(),
        settings.checkpoint,
        start,
    ]
    return [source for source in given if isinstance(source, str | os.PathLike)]


def writers(moved: Moved, folder: Path) -> list[Callable[[], None]]:
    """Functions that write each volume and field of a registration into a folder."""
    volumes = {WARPED: moved.after.image}
    volumes.update(zip(FURTHER, moved.after.further, strict=False))
    if moved.after.labels is not None:
        volumes[WARPED_LABELS] = moved.after.labels
    fields = {WARP: moved.transform, INVERSE_WARP: moved.inverse}
    return [
        *(partial(field.save, folder / name) for name, field in fields.items()),
        *(partial(nifti.save_volume, folder / name, v.data, v.grid) for name, v in volumes.items()),
    ]


def write_page(report: Report, pair: Pair, moved: Moved, quality: Quality, folder: Path) -> None:
    """Write the quality page."""
    from ..report.page import page  # Matplotlib is slow to load: see `load_ahead`
    from ..report.panels import Pictured

    maps = (pair.fixed_labels, moved.before.labels, moved.after.labels)
    pictured = Pictured(
        pair.fixed,
        moved.before.image.data,
        moved.after.image.data,
        moved.transform,
        fetched(quality.det),
        *(None if volume is None else volume.data for volume in maps),
    )
    text = page(report, pictured)
    (folder / PAGE).write_text(text, encoding="utf-8", errors="backslashreplace")


def write_report(report: Report, folder: Path) -> None:
    """Write report.json."""
    write_report_json(folder / REPORT, report.as_dict())


def read_report(folder: Path) -> Report:
    """Read the report of an earlier run. Raises InputError if it is missing or damaged."""
    with reading(f"the result in {folder}"):
        report = Report.from_dict(json.loads((folder / REPORT).read_text(encoding="utf-8")))
        if "total" not in report.seconds:
            raise ValueError("its report has no total time")
    return report
