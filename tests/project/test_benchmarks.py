"""The benchmarks' plumbing, at sizes that take no time: what they say is what they measured."""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pytest_benchmark.session import PerformanceRegression

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # last, so that the installed package stays the one that is found

from benchmarks import machine, memory, networks, plot, report, scaling, table, timing  # noqa: E402
from benchmarks import test_peers as peers  # noqa: E402
from benchmarks.results import PARTIAL, Results, Row, load  # noqa: E402
from benchmarks.run import disagreements  # noqa: E402
from benchmarks.targets import GUARDED, SLACK, TARGETS  # noqa: E402
from lganet_fast.ops import OPERATIONS  # noqa: E402
from lganet_fast.reproduction.targets import NETWORKS  # noqa: E402

DOCS = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
ROW = Row("warp", "160x192x224", "", "float32", "cpu", "forward", "native", "published")
TINY = ("--size", "8x8x8", "--quick", "--threads", "1", "-p", "no:cacheprovider")


def cases(operation):
    return importlib.import_module(f"benchmarks.test_{operation}").CASES


def suite(*words, **environment):
    """Run the suite in a process of its own."""
    command = [sys.executable, "-m", "pytest", *words]
    outer = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    environment = {**outer, **environment}  # beside other workers nothing would be measured
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def suite_here(capfd, monkeypatch):
    """Run the suite in this process, which has what it imports already."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path])  # pytest puts the sources first
    monkeypatch.setenv("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
        monkeypatch.delenv(name)  # beside other workers nothing is measured
    before = torch.get_num_threads()

    def run(*words):
        try:
            code = pytest.main([*words, "-p", "no:cov"])
        finally:
            torch.set_num_threads(before)
        said = capfd.readouterr()
        return code, said.out + said.err

    return run


@pytest.mark.parametrize("line", re.findall("^pytest benchmarks.*", DOCS, re.MULTILINE))
def test_documented_commands_are_understood(line, suite_here, tmp_path):
    words = [word for word in shlex.split(line)[1:] if "compare" not in word]
    code, said = suite_here(*words, "--collect-only", "-q", f"--benchmark-storage={tmp_path}")
    assert code == 0, said
    assert "test_warp[cpu-160x192x224" in said


def test_documented_modules_are_understood():
    lines = re.findall(r"^python -m benchmarks\.(\w+)(.*)", DOCS, re.MULTILINE)
    assert {name for name, _ in lines} == {"count", "gpu", "report", "scaling"}
    for name, words in lines:
        importlib.import_module(f"benchmarks.{name}").parser().parse_args(shlex.split(words))


def test_every_operation_has_a_file():
    for operation in (*OPERATIONS, "model", "training_step", "register"):
        assert all(case.operation == operation for case in cases(operation))
        assert any(case.quick for case in cases(operation))


@pytest.mark.parametrize("target", [*TARGETS, *GUARDED], ids=lambda t: f"{t.title}, {t.of}")
def test_every_target_is_measured(target):
    rows = [
        replace(ROW, operation=c.operation, size=table_size(c), detail=c.detail, type=c.type)
        for c in cases(target.operation)
        if target.way in c.ways and target.mode in c.modes and (c.memory or target.of == "time")
    ]
    rows = [replace(row, mode=target.mode, way=target.way) for row in rows]
    assert any(target.about(row) for row in rows)
    assert target.aim >= target.ask > 1


def table_size(case):
    return "x".join(map(str, case.size))


def test_ways_are_timed_in_turn():
    order = []
    ways = {name: lambda name=name: lambda: order.append(name) for name in "AB"}
    times = timing.interleave(ways, rounds=3, seconds=0, warm=False, device="cpu")
    assert order == list("ABABAB")
    assert [len(seconds) for seconds in times.seconds.values()] == [3, 3]


def test_a_way_that_raises_leaves_the_others():
    def broken():
        raise RuntimeError("no such thing")

    ways = {"A": lambda: broken, "B": lambda: lambda: 1}
    times = timing.interleave(ways, rounds=2, seconds=0, warm=True, device="cpu")
    assert times.failed == {"A": "no such thing"}
    assert list(times.seconds) == ["B"]


def test_a_ratio_survives_a_machine_that_slows_down():
    assert timing.ratio([1.0, 2.0, 8.0], [0.5, 1.0, 4.0]) == timing.Spread(2, 2, 2)
    assert timing.ratio([1.0, 2.0, 9.0], [0.5, 1.0, 1.0]).median == 2


def test_a_wrong_result_is_not_timed():
    (case, *_) = cases("resize")
    good = torch.rand(1, 3, 4, 4, 4)
    for wrong in (good + 0.1, good * torch.nan, None):
        times = timing.Times(first={case.baseline: good, "native": wrong})
        assert list(disagreements(case, "forward", times)) == ["native"]
    times = timing.Times(first={case.baseline: good, "native": good + 1e-5})
    assert not disagreements(case, "forward", times)


def test_the_guard_lets_a_fifth_pass():
    (target, *_) = [t for t in TARGETS if t.about(ROW)]
    assert target.missed(replace(ROW, ratio=SLACK * target.ask + 0.01)) is None
    for ratio in (SLACK * target.ask - 0.01, None):
        said = target.missed(replace(ROW, ratio=ratio))
        assert target.title in said
        assert f"{SLACK * target.ask:.2f}x" in said


def test_memory_is_that_of_a_fresh_process(monkeypatch):
    result = 4 * 3 * 96**3
    task = memory.Task("resize", 0, (96, 96, 96), "reference", "forward", 1)
    assert result < memory.of_fresh_process(task) < result + 150e6
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(memory.NotMeasuredError, match="exit status 1"):
        memory.of_fresh_process(task)


def test_operations_of_the_network_are_counted():
    single, double = (networks.multiply_adds((side, 48, 48)) for side in (48, 96))
    assert single > 2 * 27 * 48**3 * (24 * 24 + 24 * 3)  # the first level's two convolutions
    assert double == pytest.approx(2 * single, rel=0.05)


def test_suite_writes_what_it_measured_and_compares(tmp_path, suite_here):
    stored = tmp_path / "stored"
    options = (*TINY, f"--benchmark-storage={stored}", f"--results={tmp_path}")
    code, said = suite_here(
        "benchmarks/test_resize.py", "-k", "cuda or forward", *options, "--benchmark-autosave"
    )
    assert code == 0, said
    assert "not run: " in said
    (file,) = tmp_path.glob("*-part.json")
    assert all(file.with_suffix(ending).exists() for ending in (".csv", ".md", ".png"))
    results = load(file)
    stamp = results.machine
    assert stamp["torch"] == torch.__version__
    assert stamp["threads"] == 1
    assert {"cpu", "gpu", "cores", "triton", "driver", "commit", "date", "simd"} <= set(stamp)
    rows = {(row.device, row.mode, row.way): row for row in results.rows}
    base = rows["cpu", "forward", "reference"]
    assert base.ratio == 1
    assert base.floor > 0
    if not torch.cuda.is_available():
        assert {r.status for r in results.rows if r.device == "cuda"} == {"not run"}
        assert all(r.reason for r in results.rows if r.device == "cuda")
    with file.with_suffix(".csv").open() as lines:
        assert len(list(csv.DictReader(lines))) == len(results.rows)

    (saved,) = stored.rglob("*.json")
    data = json.loads(saved.read_text())
    by_name = {b["name"]: b for b in data["benchmarks"]}
    (name,) = [n for n in by_name if "reference" in n and "cpu" in n]
    assert by_name[name]["stats"]["median"] == pytest.approx(base.median, rel=1e-5)
    assert data["machine_info"]["lganet_fast"]["cpu"] == stamp["cpu"]
    by_name[name]["stats"].update(min=1e-9)
    saved.write_text(json.dumps(data))
    words = ("--benchmark-compare", "--benchmark-compare-fail=min:5%")
    with pytest.raises(PerformanceRegression):
        pytest.fail(
            str(suite_here("benchmarks/test_resize.py", "-k", "cpu and forward", *options, *words))
        )


def test_suite_runs_without_compiler_and_triton(tmp_path):
    """What a pure-Python install does not have is kept from being imported."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfor name in ('triton', 'lganet_fast._native'):\n    sys.modules[name] = None\n"
    )
    before = os.environ.get("PYTHONPATH")
    found = {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(tmp_path), before))),
        "PATH": str(tmp_path),
    }
    words = ("benchmarks/test_correlate.py", "-k", "32_channels-float32-forward", *TINY)
    words = tuple(word for word in words if word != "--quick")  # which compiles nothing anyway
    code, said = suite(*words, f"--results={tmp_path}", **found)
    assert code == 0, said
    (file,) = tmp_path.glob("*-part.json")
    rows = {row.way: row for row in load(file).rows if row.device == "cpu"}
    assert rows["reference"].status == "run"
    assert {rows[way].status for way in ("native", "triton", "compiled")} == {"not run"}
    assert "compiler" in rows["compiled"].reason
    assert rows["native"].reason


def full_run(tmp_path):
    """Made-up results of a full run, written and read again."""
    stamp = machine.stamp() | {"cpu": "Example CPU"}
    rows = [
        replace(ROW, way="published", rounds=3, median=2.0, low=1.9, high=2.2, ratio=1.0),
        replace(ROW, rounds=3, median=0.4, low=0.3, high=0.5, ratio=5.0, ratio_low=4.5),
        replace(ROW, way="triton").refused("not run", "it needs a CUDA device"),
        replace(ROW, device="cuda").refused("not run", "no driver"),
    ]
    (path, *_) = table.save(Results(stamp, rows), tmp_path, "example")
    again = load(path)
    assert again.rows == rows
    return again


def test_tables_say_what_ran(tmp_path):
    results = full_run(tmp_path)
    assert "5.00x" in table.text(results)
    assert "not run: no driver" in table.text(results)
    assert "| **5.00x** | 2 s to 400 ms |" in table.targets(results)
    assert plot.draw(results, tmp_path / "x.png").stat().st_size > 1000


def test_readme_block_is_made_from_results(tmp_path):
    results = full_run(tmp_path)
    text = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    new = report.renewed(text, [results])
    assert "5.00x" in new
    assert "old" not in new
    assert new.startswith("before\n")
    assert new.endswith("\nafter\n")
    assert report.renewed(new, [results]) == new
    with pytest.raises(ValueError, match="must hold"):
        report.renewed("nothing", [results])


def test_readme_agrees_with_the_stored_results():
    text = report.README.read_text(encoding="utf-8")
    assert report.renewed(text, report.committed()) == text, (
        "run python -m benchmarks.report --readme"
    )


def test_every_network_is_told_beside_its_plain_form():
    kept = []
    for name, ratio in (("rdp", 2.0), ("modet", 8.0)):
        for mode in ("forward", "step"):
            row = replace(ROW, operation="peers", detail=name, mode=mode, baseline="plain")
            kept.append(replace(row, way="plain", median=4.0, peak=2**30))
            more = {"ratio": ratio, "peak": 2**28, "memory_ratio": 4.0}
            kept.append(replace(row, way="auto", median=4.0 / ratio, **more))
    text = report.networks(Results({}, kept))
    line = "4 s to 2 s | 2.00x | 1024 to 256 | 4.00x"
    assert f"| rdp | {line} | {line} |" in text
    assert "| geometric mean |  | 4.00x |  | 4.00x |  | 4.00x |  | 4.00x |" in text
    with pytest.raises(ValueError, match="no step of modet"):
        report.networks(Results({}, kept[:-1]))


@pytest.mark.parametrize("name", [n for n in NETWORKS if not n.startswith("lganet")])
def test_plain_networks_compute_the_same(name):
    size = (32, 32, 32)  # LGANet's two need larger ones: the benchmark itself compares them
    images = networks.pair(size, torch.float32, "cpu")
    with torch.no_grad():
        wanted, found = (make(name, size).eval()(*images) for make in (peers.theirs, peers.ours))
    assert (found - wanted).abs().max() < 5e-3 * wanted.abs().max()


def test_partial_runs_are_not_reported(tmp_path):
    for ending in PARTIAL:
        (tmp_path / f"x{ending}.json").write_text("{}")
    assert report.committed(tmp_path) == []


def test_scaling_measures_a_fresh_process(monkeypatch):
    found = scaling.point("gradient_loss", 64, 1, "cpu")
    assert found["bytes"] > 3 * 4 * 64**3
    assert found["seconds"] > 0
    monkeypatch.setattr(sys, "executable", "false")
    assert scaling.point("gradient_loss", 64, 1, "cpu")["failed"] == "exit status 1"


def test_scaling_goes_on_in_a_line(tmp_path, monkeypatch, capsys):
    def made_up(name, side, *_):
        return {"work": name, "side": side, "seconds": side**3 / 1e6, "bytes": 1000.0 * side**3}

    monkeypatch.setattr(scaling, "point", made_up)
    scaling.main(["--works", "warp", "--sides", "16", "64", "--results", str(tmp_path)])
    (file,) = tmp_path.glob("*-scaling.json")
    assert json.loads(file.read_text())["largest_side"]["warp"]["8 GB"] in (199, 200)
    assert "extrapolated" in capsys.readouterr().out
    assert file.with_suffix(".png").stat().st_size > 1000


def test_scaling_stops_where_memory_would_not_do(monkeypatch, capsys):
    made = {"seconds": 1.0, "bytes": 0.0}
    monkeypatch.setattr(scaling, "available_memory", lambda device: 1000)
    monkeypatch.setattr(
        scaling,
        "point",
        lambda name, side, *_: {"work": name, "side": side, **made, "bytes": side**3},
    )
    points = scaling.sweep(["warp"], (2, 4, 8, 16, 32), 1, "cpu", 100)
    assert [p["side"] for p in points] == [2, 4, 8, 16]
    assert "needed" in points[-1]["failed"]
    assert scaling.largest(points)["warp"]["8 GB"] == pytest.approx(2000, abs=1)
