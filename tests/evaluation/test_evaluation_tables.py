"""Statistics and tables of an evaluation, by hand and against SciPy and statsmodels."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import wilcoxon

from lganet_fast import InputError
from lganet_fast.evaluation.results import Store, read_cases
from lganet_fast.evaluation.scores import Scores
from lganet_fast.evaluation.statistics import compare, holm, signed_rank, spread
from lganet_fast.evaluation.tables import latex, markdown


def table(values, key="dice"):
    return {f"case {i}": {key: float(value)} for i, value in enumerate(values)}


@pytest.fixture
def rng():
    return np.random.default_rng(2)


def test_spread_leaves_out_what_does_not_exist():
    found = spread(table([0.5, math.nan, 0.7]))
    assert found == {"dice": {"mean": pytest.approx(0.6), "std": pytest.approx(0.1), "cases": 2}}
    assert spread(table([math.nan])) == {}


def test_wilcoxon_is_scipys_over_common_cases(rng):
    own, other = rng.normal(size=(2, 12))
    rows = table(other)
    rows["another"] = rows.pop("case 3")
    rows["case 5"]["dice"] = math.nan
    common = [i for i in range(12) if i not in (3, 5)]
    found = compare(table(own), {"B": rows})["B"]["dice"]
    assert found.cases == 10
    assert found.p == found.adjusted == wilcoxon(own[common], other[common]).pvalue
    assert found.difference == pytest.approx((other - own)[common].mean())


def test_equal_and_empty_samples():
    same = np.array([1.0, 2.0])
    assert signed_rank(same, same) == 1
    assert math.isnan(signed_rank(same[:0], same[:0]))
    assert compare(table([1, 2]), {"B": {"z": {"dice": 1.0}}}) == {"B": {}}


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1, 1]
    assert holm([]) == []
    np.testing.assert_equal(holm([math.nan, 0.02]), [math.nan, 0.02])


def test_holm_is_statsmodels(rng):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    values = rng.uniform(0, 0.1, 9)
    assert holm(list(values)) == pytest.approx(multitest.multipletests(values, method="holm")[1])


def test_holm_counts_the_methods_of_one_metric(rng):
    own = rng.normal(size=15)
    others = {
        name: table(own + shift + rng.normal(size=15)) for name, shift in (("A", 1), ("B", 0))
    }
    found = compare(table(own), others)
    p = {name: tests["dice"].p for name, tests in found.items()}
    assert found["A"]["dice"].adjusted == pytest.approx(2 * p["A"])
    assert found["A"]["dice"].significant
    assert found["B"]["dice"].adjusted == pytest.approx(max(p["B"], 2 * p["A"]))
    assert not found["B"]["dice"].significant


@pytest.fixture
def methods():
    """Three methods, of which the second differs from the last in every case."""
    own = [0.7, 0.72, 0.68, 0.71, 0.73, 0.69, 0.74, 0.7]
    return {
        "Same_one": table([x - 0.001 * (-1) ** i for i, x in enumerate(own)]),
        "Worse & older": {
            name: {"dice": row["dice"] - 0.2, "njd_percent": 1.5}
            for name, row in table(own).items()
        },
        "Ours": table(own),
    }


def test_markdown_marks_the_best_and_what_differs(methods):
    compared = compare(methods["Ours"], {k: v for k, v in methods.items() if k != "Ours"})
    lines = markdown(methods, compared, "Ours").splitlines()
    assert lines[0] == "| Method | DSC ↑ | NJD (%) ↓ |"
    assert lines[2].startswith("| Same_one | **0.709 ± 0.0")
    assert lines[2].endswith("| \N{EN DASH} |")
    assert lines[3] == r"| Worse & older | 0.509 ± 0.019\* | **1.5000 ± 0.0000** |"
    assert lines[4].startswith("| Ours | **0.709 ± 0.019** |")
    assert "over 8 cases" in lines[6]
    assert lines[7].startswith(r"\* significantly different from Ours")


def test_latex_is_escaped_and_even(methods):
    compared = compare(methods["Ours"], {k: v for k, v in methods.items() if k != "Ours"})
    lines = latex(methods, compared, "Ours").splitlines()
    body = [line for line in lines if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in body} == {2}
    assert r"Worse \& older & $0.509 \pm 0.019^{*}$ & $\mathbf{1.5000} \pm 0.0000$ \\" in body
    assert r"Same\_one" in body[1]
    assert r"NJD (\%) $\downarrow$" in body[0]


def test_of_three_or_more_the_second_is_underlined():
    methods = {name: table([x, x]) for name, x in (("A", 0.5), ("B", 0.7), ("C", 0.6))}
    lines = markdown(methods, {}, "C", {"Paper": {"B": "0.71"}}).splitlines()
    assert lines[0] == "| Method | DSC ↑ | Paper |"
    assert lines[2:5] == [
        "| A | 0.500 ± 0.000 |  |",
        "| B | **0.700 ± 0.000** | 0.71 |",
        "| C | <u>0.600 ± 0.000</u> |  |",
    ]
    body = latex(methods, {}, "C", {"Paper": {"B": "0.71"}})
    assert r"C & $\underline{0.600 \pm 0.000}$ &  \\" in body
    assert r"B & $\mathbf{0.700} \pm 0.000$ & 0.71 \\" in body
    assert r"\begin{tabular}{lrr}" in body
    assert "<u>" not in markdown({k: methods[k] for k in "AB"}, {}, "A")


def test_no_mark_without_a_difference_and_no_best_of_one():
    text = markdown({"Ours": table([0.5, 0.7])}, {}, "Ours")
    assert "*" not in text


def test_cases_are_read_back(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text("case,dice,colour,tre_mm\na,0.5,red,\nb,nan,blue,2\n")
    np.testing.assert_equal(
        read_cases(path),
        {"a": {"dice": 0.5, "tre_mm": math.nan}, "b": {"dice": math.nan, "tre_mm": 2.0}},
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have the columns case"),
        ("case,dice\n", "has no row"),
        ("dice\n0.5\n", "case missing"),
        ("case,colour\na,red\n", "no column of scores"),
        ("case,dice\na,0.5\na,0.6\n", "has a twice, again in line 3"),
        ("case,dice\na,high\n", "line 2: could not convert"),
        ("case,dice\na\n", "row 2: 1 cells under 2 columns"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "cases.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_cases(path)


def test_a_case_is_kept_whole_under_its_settings(tmp_path):
    store = Store(tmp_path, {"a": (1, 2)})
    store.make()
    scores = Scores({"case": "x/y to ..", "dice": math.nan}, [{"label": 3, "dice": 0.25}])
    store.put(scores)
    found = store.get("x/y to ..")
    np.testing.assert_equal((found.case, found.labels), (scores.case, scores.labels))
    assert Store(tmp_path, {"a": [1, 3]}).get("x/y to ..") is None
    assert store.get("z") is None
    assert [path.parent.name for path in tmp_path.rglob("*.json")] == ["cases"]


WHOLE = {
    "settings": {"a": 1},
    "files": [],
    "case": {"case": "c", "dice": 0.5},
    "labels": [{"label": 1}],
}


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "null",
        "[" * 20000,
        *(
            json.dumps({**WHOLE, **change})
            for change in (
                {"settings": 5},
                {"case": 5},
                {"case": {"case": "c"}},
                {"case": {"case": "d", "dice": 0.5}},
                {"case": {"case": "c", "dice": "x"}},
                {"case": {"case": "c", "dice": [1]}},
                {"labels": 5},
                {"labels": [5]},
                {"labels": [{}]},
                {"labels": None},
            )
        ),
    ],
)
def test_a_damaged_case_is_not_there(tmp_path, content):
    store = Store(tmp_path, {"a": 1}, (["case", "dice"], ["label"]))
    store.make()
    (tmp_path / "cases" / "c.json").write_text(json.dumps(WHOLE))
    assert store.get("c").case["dice"] == 0.5
    (tmp_path / "cases" / "c.json").write_text(content)
    assert store.get("c") is None
