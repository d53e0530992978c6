"""The report file and the quality-control page."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread
from reports import SCORES, report_of
from scipy import ndimage

from lganet_fast.errors import InputError
from lganet_fast.report import page as pages
from lganet_fast.report import qc_page
from lganet_fast.report.contents import Input
from lganet_fast.report.panels import (
    FIXED_COLOUR,
    FOLD_COLOUR,
    MOVED_COLOUR,
    Pictured,
    foreground,
)
from lganet_fast.report.planes import PLANES, Views
from lganet_fast.runtime.json_files import report_json, write_report_json
from lganet_fast.transforms.field import DisplacementField
from lganet_fast.volumes.grid import Grid, Volume

SHAPE = (26, 30, 22)
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that tags nest, and keeps what a test asks for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.alts, self.links, self.words = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.links += [v for k, v in attrs if k in ("href", "src") and not v.startswith("data:")]
        if tag == "img":
            head, data = found["src"].split(",")
            assert head == "data:image/png;base64"
            self.images.append(base64.b64decode(data, validate=True))
            self.alts.append(found["alt"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def picture(self, alt):
        return imread(io.BytesIO(self.images[self.alts.index(alt)]))


def example(affine=None, with_labels=True):
    rng = np.random.default_rng(3)
    grid = Grid(SHAPE, np.diag([-1.5, 1.0, 2.0, 1.0]) if affine is None else affine)
    head = ndimage.gaussian_filter(rng.random(SHAPE), 1.5) * 400
    middle = np.indices(SHAPE) - np.reshape(np.array(SHAPE) / 2, (3, 1, 1, 1))
    head[(middle**2 / np.reshape(np.array(SHAPE) ** 2 / 6, (3, 1, 1, 1))).sum(0) > 1] = 0
    fixed = Volume(head.astype(np.float32), grid, "fixed")
    noise = ndimage.gaussian_filter(rng.normal(size=(*SHAPE, 3)), (3, 3, 3, 0))
    field = DisplacementField((noise * 3 / np.abs(noise).max()).astype(np.float32), grid)
    after = field.apply(fixed).data
    labels = (head > 150).astype(np.int32) + (head > 210)
    maps = (labels, np.roll(labels, 2, 0), labels) if with_labels else (None, None, None)
    return report(with_labels), fixed, fixed.data, after, field, *maps


def report(with_labels=True):
    entry = Input(
        path="/data/a <b> & 'c'.nii.gz",
        sha256="0123456789abcdef" * 4,
        shape=list(SHAPE),
        spacing_mm=[1.5, 1.0, 2.0],
        orientation="LAS",
    )
    return report_of(
        {"fixed": entry, "moving": replace(entry, path=None, sha256=None)},
        {"similarity": "lncc", "iterations": (60, 25), "initial": "identity", "checkpoint": None},
        labels=SCORES if with_labels else None,
        verdict="doubtful",
        reasons=["the similarity fell"],
        warnings=["1.20% of voxels fold <script>alert(1)</script>"],
    )


def page_of(report, fixed, before, after, transform, *labels):
    """The page, with the Jacobian determinant of the transform."""
    det = transform.jacobian_determinant()
    return pages.page(report, Pictured(fixed, before, after, transform, det, *labels))


@pytest.fixture(scope="module")
def page():
    return page_of(*example())


def test_page_stands_alone_and_nests(page):
    parsed = Page(page)
    assert parsed.links == []
    assert (
        re.search(r"https?:|url\(|@import|<script|<link", re.sub(r"base64,[^\"]*", "", page))
        is None
    )
    assert len(parsed.images) == 27
    assert all(image.startswith(b"\x89PNG") for image in parsed.images)
    assert b"Software" not in parsed.images[0]
    assert len(set(parsed.alts)) == 27
    assert '<meta name="viewport"' in page


def test_page_repeats_byte_for_byte(page):
    described, *images = example()
    slower = replace(described, seconds={"total": 99.9}, peak_memory_mb=1.0)
    assert page_of(slower, *images) == page


def test_page_of_what_report_json_holds(page):
    """The function that other programs call takes the report as a mapping."""
    described, fixed, before, after, transform, *labels = example()
    det = transform.jacobian_determinant()
    images = fixed, before, after, transform, det, *labels
    read = json.loads(report_json(described.as_dict()))
    for mapping in (described.as_dict(), read):
        assert qc_page(mapping, *images) == page
    assert described.as_dict()["labels"]["per_label"][0]["dice_after"] == 0.75
    with pytest.raises(ValueError, match=r"jacobian.max\n.*valid number"):
        qc_page({**read, "jacobian": {**read["jacobian"], "max": "much"}}, *images)
    with pytest.raises(ValueError, match=r"verdict\n.*'good', 'doubtful' or 'bad'"):
        qc_page({**read, "verdict": "fine"}, *images)


def test_page_says_what_the_report_says(page):
    text = Page(page).text
    for words in (
        "1 warning",
        "1.20% of voxels fold <script>alert(1)</script>",
        "a <b> & 'c'.nii.gz",
        "the moving image registered to",
        "Similarity 0.2500 → 0.5000 lncc, higher is better",
        "Mean Dice 0.500 → 0.750 over 2 labels",
        "Mean HD95 4.00 → 2.00 mm",
        "Folded voxels 0.0123 %",
        "-0.100 to 2.500 SDlogJ 0.0456",
        "0.011 mm mean; 99th percentile 0.220, largest \N{EN DASH}",
        "mean 0.500 0.750 4.00 2.00 1 0.500 0.750 4.00 2.00 2 0.500 0.750 4.00 \N{EN DASH}",
        "one of the two maps lacks the label",
        "26 x 30 x 22 1.5 x 1 x 2 LAS 0123456789ab".replace(" x ", " \N{MULTIPLICATION SIGN} "),
        "moving in memory",
        "iterations 60, 25 initial identity checkpoint none",
        "lganet_fast 1.2.3 torch 9.9",
    ):
        assert words in text
    assert text.index("1 warning") < text.index("Similarity") < text.index("Pictures")
    assert "12.3" not in text
    assert "98765" not in text


def test_page_without_labels_or_warnings():
    described, *images = example(with_labels=False)
    parsed = Page(page_of(replace(described, warnings=[]), *images))
    assert len(parsed.images) == 21
    assert "No warnings." in parsed.text
    assert "Dice" not in parsed.text


def test_page_of_degenerate_images_and_maps():
    described, fixed, before, after, field, *_ = example()
    nothing = np.zeros(SHAPE, np.float32)
    empty = nothing.astype(np.int32)
    page_of(described, fixed, nothing, nothing, field, None, None, empty)
    still = DisplacementField(np.zeros((*SHAPE, 3), np.float32), fixed.grid)
    page_of(described, fixed, fixed.data, fixed.data, still, empty, empty, empty)
    collapsed = DisplacementField((-fixed.grid.world()).astype(np.float32), fixed.grid)
    assert "folded, 17,160 voxels" in page_of(described, fixed, before, after, collapsed)


def place(shape, affine, world):
    """An image whose one bright voxel lies nearest to a point of the world."""
    data = np.zeros(shape, np.float32)
    index = np.round(Grid(shape, affine).to_index(world)).astype(int)
    data[tuple(index)] = 1
    return data


@pytest.mark.parametrize("code", ["RAS", "LPS", "LPI", "SAR", "PIR", "ASL"])
def test_pictures_are_turned_as_radiologists_hang_them(code):
    """One bright voxel to the patient's left, front and top of the centre shows where it should."""
    world = np.diag([1.5, 1.0, 2.0, 1.0])
    world[:3, 3] = [-18, -15, -22]
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(code)
    )
    affine = world @ nib.orientations.inv_ornt_aff(turn, SHAPE)
    shape = nib.apply_orientation(np.empty(SHAPE), turn).shape
    grid = Grid(shape, affine)
    tilt = np.eye(4)
    tilt[:3, :3] = [[0.98, -0.199, 0], [0.199, 0.98, 0], [0, 0, 1]]
    mask = place(shape, affine, [0, 0, 0])
    views = Views(Grid(shape, tilt @ affine), mask)
    np.testing.assert_allclose(views.grid.to_world(views.centre), 0, atol=1)
    for plane in PLANES:
        offset = np.array([-9.0, 8.0, 12.0])
        offset[plane.axis] = 0
        spot = place(shape, grid.affine, offset)
        png = views.draw(
            lambda axes, plane, spot=spot: views.show(
                axes, plane, views.cut(spot, plane), "gray", (0, 1)
            )
        )[plane.axis]
        picture = imread(io.BytesIO(png))[..., 0]
        assert picture.max() == 1
        rows, columns = np.nonzero(picture > 0.5)
        height, width = picture.shape
        up, left = rows.mean() < height / 2, columns.mean() < width / 2
        assert up
        # Sagittal: the front is on the left. Coronal, axial: the patient's left is on the right.
        assert left == (plane.name == "Sagittal")
        expected = views.size(plane)
        assert width / height == pytest.approx(expected[0] / expected[1], rel=0.02)


def test_letters_name_the_sides(page):
    axial = page[page.index('alt="Fixed image, axial plane"') :]
    letters = re.findall(r'<span class="(left|right|top|bottom)">(.)</span>', axial)[:4]
    assert letters == [("left", "R"), ("right", "L"), ("top", "A"), ("bottom", "P")]


def colour(picture, name):
    red, green, blue = (int(name[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return np.abs(picture[..., :3] - [red, green, blue]).max(-1) < 0.02


def test_folded_voxels_are_marked():
    described, fixed, before, after, _, *_ = example()
    displacement = np.zeros((*SHAPE, 3), np.float32)
    displacement[15:, ..., 0] = 9  # the x axis runs to the left: 6 voxels back
    field = DisplacementField(displacement, fixed.grid)
    parsed = Page(page_of(described, fixed, before, after, field))
    assert f"folded, {2 * SHAPE[1] * SHAPE[2]:,} voxels" in parsed.text
    marked = colour(parsed.picture("Jacobian determinant, axial plane"), FOLD_COLOUR)
    assert marked.mean() == pytest.approx(2 / SHAPE[0], rel=0.1)
    columns = np.nonzero(marked.any(0))[0]
    assert columns.mean() / marked.shape[1] == pytest.approx(15 / SHAPE[0], abs=0.02)


def test_outlines_of_both_label_maps_are_drawn(page):
    parsed = Page(page)
    before = parsed.picture("Labels before, axial plane")
    after = parsed.picture("Labels after, axial plane")
    assert colour(before, FIXED_COLOUR).any()
    assert colour(before, MOVED_COLOUR).any()
    assert colour(after, MOVED_COLOUR).any()
    assert not colour(after, FIXED_COLOUR).any()  # the same labels: the later line covers it


def test_lattice_of_the_identity_is_straight():
    described, fixed, _, _, field, *_ = example()
    still = DisplacementField(np.zeros((*SHAPE, 3), np.float32), fixed.grid)
    dark = Volume(np.where(fixed.data > 0, 1e-3, 0).astype(np.float32), fixed.grid, "fixed")
    dark.data[0, 0, 0] = 1

    def lines(transform):
        page = Page(page_of(described, dark, dark.data, dark.data, transform))
        picture = page.picture("Deformed grid, axial plane")
        yellow = (picture[..., 0] > 0.5) & (picture[..., 2] < 0.5)
        return yellow.mean(0), yellow.mean(1)

    columns, rows = lines(still)
    assert (columns > 0.95).sum() > 10
    assert (rows > 0.95).sum() > 10
    columns, rows = lines(field)
    assert not (columns > 0.95).any()
    assert not (rows > 0.95).any()


def test_foreground_is_the_bright_part():
    data = np.full((10, 10, 10), -1000.0)
    data[2:8, 2:8, 2:8] = 50
    assert foreground(data).sum() == 216


def test_report_is_strict_json(tmp_path):
    path = tmp_path / "report.json"
    write_report_json(
        path,
        {
            "path": Path("a") / "b",
            "count": np.int64(3),
            "list": (np.float32(0.5), float("inf"), float("nan")),
            "matrix": np.array([[1.0, np.nan]]),
            "none": None,
            "name": "größe",
            7: True,
        },
    )
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert '\n  "count": 3,' in text
    assert json.loads(text, parse_constant=pytest.fail) == {
        "path": os.path.join("a", "b"),
        "count": 3,
        "list": [0.5, None, None],
        "matrix": [[1.0, None]],
        "none": None,
        "name": "größe",
        "7": True,
    }


def test_report_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_report_json(path, {"what": object()})
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
    with pytest.raises(InputError, match=r"cannot write .*missing"):
        write_report_json(tmp_path / "missing" / "report.json", {})


def test_what_is_not_the_page_s_own_is_text_and_never_markup_or_template():
    described, *images = example()
    hostile = "</p><img src=x onerror=alert(1)>{{ 7 * 7 }}{% raw %}"
    settings = versions = {hostile: hostile}
    lines = {"reasons": [hostile], "warnings": [hostile]}
    page = page_of(replace(described, settings=settings, versions=versions, **lines), *images)
    assert "<img src=x" not in page
    assert Page(page).text.count("{{ 7 * 7 }}{% raw %}") == 6
