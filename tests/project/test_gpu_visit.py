"""`python -m benchmarks.gpu`, rehearsed: its phases, its report, and what survives what."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # last, as in test_benchmarks

from benchmarks.count import Conv  # noqa: E402
from benchmarks.gpu import (  # noqa: E402
    kernels,
    model,
    paths,
    render,
    shapes,
    survive,
    tune,
    warm,
)
from benchmarks.gpu.command import NAMES, parser, phases  # noqa: E402
from benchmarks.gpu.conductor import RESERVE, Phase, conduct  # noqa: E402
from benchmarks.gpu.questions import QUESTIONS  # noqa: E402
from benchmarks.gpu.work import Work, finite, loaded  # noqa: E402
from lganet_fast.ops import tuned  # noqa: E402

ABSENT = ("nibabel", "scipy", "matplotlib", "isal", "tqdm", "safetensors", "tomli", "SimpleITK")
LONG = "1234.5"  # seconds that no other process here sleeps
BLOCK = f"import sys\nfor name in {ABSENT}: sys.modules[name] = None\n"


def good(work):
    work.put(answer=42)


def wrong(work):
    work.put(now=True, half="done")
    raise RuntimeError("no such kernel\nand more")


def dead(work):
    work.put(now=True, half="done")
    os.kill(os.getpid(), signal.SIGKILL)


def hanging(work):
    work.put(now=True, half="done")
    subprocess.Popen(["sleep", LONG])
    sys.stdin.read()  # which is empty
    while True:
        time.sleep(1)


def conducted(tmp_path, *wanted, seconds=60.0):
    work = Work("", tmp_path, time.monotonic() + seconds, dry=True)
    started = time.monotonic()
    report = conduct(wanted, work, render.markdown)
    assert json.loads((tmp_path / "report.json").read_text()) == finite(report)
    return report["phases"], time.monotonic() - started


def test_what_fails_dies_or_hangs_is_passed_over(tmp_path):
    wanted = (
        Phase("beside", hanging, 30, beside="good"),
        Phase("wrong", wrong, 5),
        Phase("dead", dead, 5),
        Phase("hanging", hanging, 0.5),
        Phase("good", good, 5),
    )
    found, seconds = conducted(tmp_path, *wanted)
    told = {name: phase["status"] for name, phase in found.items()}
    assert told == {
        "wrong": "failed",
        "dead": "died",
        "hanging": "ended",
        "beside": "ended",
        "good": "done",
    }
    assert found["wrong"]["reason"] == "RuntimeError: no such kernel"
    assert "no such kernel" in (tmp_path / "phases" / "wrong.log").read_text()
    assert found["good"]["answer"] == 42
    assert {found[name]["half"] for name in ("wrong", "dead", "hanging", "beside")} == {"done"}
    assert seconds < 20
    assert "| hanging | ended |" in (tmp_path / "report.md").read_text()
    assert not sleeping(tmp_path)


def sleeping(tmp_path):
    """Processes that the phases have left behind."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
            parent = entry.with_name("stat").read_text().split()[2]
        except OSError:
            continue
        found += [entry] if words[:2] == [b"sleep", LONG.encode()] and parent != "Z" else []
    return found


def test_the_deadline_is_kept(tmp_path):
    wanted = [Phase(str(number), hanging, 100) for number in range(3)]
    found, seconds = conducted(tmp_path, *wanted, seconds=RESERVE + 2.5)
    assert [phase["status"] for phase in found.values()] == ["ended", "not run", "not run"]
    assert seconds < RESERVE + 2.5
    assert found["2"]["reason"] == "no time was left"


def test_a_quick_phase_leaves_its_time(tmp_path):
    def left(work):
        work.put(left=work.left())

    found, _ = conducted(tmp_path, Phase("quick", good, 20), Phase("next", left, 10))
    assert found["next"]["left"] > 20


def test_a_broken_rendering_is_no_broken_report(tmp_path):
    def broken(report):
        raise KeyError("phases")

    work = Work("", tmp_path, time.monotonic() + 60)
    conduct([Phase("good", good, 5)], work, broken)
    assert "KeyError" in (tmp_path / "report.md").read_text()
    assert loaded(tmp_path / "report.json")["phases"]["good"]["answer"] == 42


def run(*words, prefix="", **environment):
    """Run the command in a fresh interpreter, its input closed."""
    code = f"{prefix}import runpy, sys\nsys.argv = {['gpu', *words]!r}\n"
    code += "runpy.run_module('benchmarks.gpu', run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_dry_run_without_what_a_bare_machine_lacks(tmp_path):
    """All phases, with nothing but torch, NumPy and Triton."""
    done = run("--dry-run", "--out", str(tmp_path), "--deadline", "200", prefix=BLOCK)
    assert done.returncode == 0, done.stderr
    report = loaded(tmp_path / "report.json")
    assert report["dry"] is True
    assert report["phases"].keys() == set(NAMES)
    statuses = {name: phase["status"] for name, phase in report["phases"].items()}
    if statuses.pop("build") != "done":  # a tree beside an installed package holds nothing compiled
        assert "does not load" in report["phases"]["build"]["reason"]
    assert set(statuses.values()) == {"done"}, (statuses, done.stdout)
    found = report["phases"]
    assert found["kernels"]["wrong"] == []
    assert found["network"]["graph"]["equal"] is True
    assert found["tune"]["shapes"][0]["floor us"] > 0
    assert set(found["timing"]["groups"]) == {"16x16x16 float32 forward", "16x16x16 bfloat16 step"}
    assert found["profile"]["runs"]["16x16x16 float32 eager"]["operators"]
    assert "not run" in found["register"]["command"]
    text = (tmp_path / "report.md").read_text()
    assert "A dry run without a GPU" in text
    assert "not readable" not in text
    assert all(f"\n## {title}\n" in text for title in render.PARTS)
    assert all(question.text in text for question in QUESTIONS)
    assert tuned.read(tmp_path / "sm_00.json")
    assert loaded(tmp_path / "tuned.json")["shapes"]


def test_importing_asks_for_no_device():
    """A process that has asked cannot be forked from: every phase would fail."""
    modules = ("lganet_fast.ops", "lganet_fast.models", "benchmarks.gpu.render")
    code = f"""{BLOCK}
import torch
def asked(*_): raise AssertionError("a device was asked for")
for name in ("_cuda_getDeviceCount", "_cuda_init"):
    setattr(torch._C, name, asked)
import importlib
for name in {modules}: importlib.import_module(name)
from benchmarks.gpu.command import phases
assert len(phases()) > 5
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment)


def test_phases_are_those_that_can_be_asked_for(capsys):
    assert ["build", *(phase.name for phase in phases())] == list(NAMES)
    given = parser().parse_args(["--only", "tune", "kernels", "--tune"])
    assert given.only == ["tune", "kernels"]
    assert sum(phase.limit for phase in phases() if not phase.beside) < 450
    with pytest.raises(SystemExit):
        parser().parse_args(["--only", "nothing"])
    assert "build" in capsys.readouterr().err


def test_a_gradient_is_what_autograd_says():
    """PyTorch's path, which others are held against, and the float64 that all are."""
    for operation in tuned.OPERATIONS:
        problem = paths.Problem(Conv(operation, 3, 5, (2, 4, 5, 6)), "float32")
        given = paths.Given.of(problem, "cpu")
        x, weight = (t.double().requires_grad_() for t in (given.x, given.weight))
        out = torch.nn.functional.conv3d(x, weight, given.bias.double(), padding=1)
        expected = {
            "convolve": lambda out=out: out.relu(),
            "convolve_input_gradient": lambda out=out, x=x, given=given: torch.autograd.grad(
                out, x, given.grad.double()
            )[0],
            "convolve_weight_gradient": lambda out=out, w=weight, given=given: torch.autograd.grad(
                out, w, given.grad.double()
            )[0],
        }[operation]()
        torch.testing.assert_close(paths.right(problem, given), expected)
        found = paths.PATHS["cudnn"].run(problem, 1, given)()
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def visited(tmp_path, items, do, seconds=60):
    """`survive.each` over some names; what is on the trail."""
    work = Work("tried", tmp_path, time.monotonic() + seconds)
    work.file.parent.mkdir()
    trails = []
    survive.each(
        work, lambda trail: items, lambda item: (item[0], {"name": item}), do, trails.append
    )
    return trails[-1]


def test_a_crash_costs_one_candidate_and_a_few_a_path(tmp_path):
    def do(trail, item):
        if item.startswith("bad"):
            trail.lines.open("a").write('\n{"kind": "done", "na')
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "error":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        trail.add("done", name=item)

    names = ["good 1", "bad 1", "good 2", "bad 2", "error", "bad 3", "bad 4", "b", "x"]
    trail = visited(tmp_path, names, do)
    assert [row["name"] for row in trail.rows("done")] == ["good 1", "good 2", "x"]
    crashed = [row["name"] for row in trail.rows("crashed")]
    assert crashed == ["bad 1", "bad 2", "error", "bad 3"]  # no more that start with b


def test_a_candidate_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(survive, "PATIENCE", 0.3)

    def do(trail, item):
        if item == "slow":
            time.sleep(1000)
        trail.add("done", name=item)

    trail = visited(tmp_path, ["1", "slow", "2"], do)
    assert [row["name"] for row in trail.rows("done")] == ["1", "2"]
    assert [row["name"] for row in trail.rows("crashed")] == ["slow"]


def test_what_fails_at_once_ends(tmp_path):
    def items():
        raise RuntimeError("no device")
        yield

    trail = visited(tmp_path, items(), None)
    (row,) = trail.rows("crashed")
    assert row["what"] == "before anything was tried"


@pytest.mark.parametrize("phase", [kernels.run, tune.run, warm.run])
def test_phases_that_fork_ask_for_no_device(phase, tmp_path, monkeypatch):
    """Only the processes that work do; here there may be no device, and they fail."""
    ours = os.getpid()

    def asked(*_):
        assert os.getpid() != ours, "a device was asked for"
        raise RuntimeError("no device here")

    for name in ("is_available", "get_device_properties", "get_device_capability", "init"):
        monkeypatch.setattr(torch.cuda, name, asked)
    work = Work("tried", tmp_path, time.monotonic() + 30)
    work.file.parent.mkdir()
    phase(work)
    assert "no device here" in str(loaded(work.file)) or "crashed" not in work.found


def test_a_wrong_candidate_does_not_win(tmp_path, monkeypatch):
    class Wrong(paths.Cudnn):
        def run(self, problem, config, given):
            return lambda: torch.full_like(given.grad, torch.nan)

    monkeypatch.setitem(paths.PATHS, "native", Wrong())
    problem = paths.Problem(Conv("convolve", 8, 8, (1, 4, 5, 6)), "float32")
    work = Work("tune", tmp_path, time.monotonic() + 60, dry=True)
    work.file.parent.mkdir()
    trail = survive.Trail(work)
    for path in ("native", "cudnn"):
        tune.measure(work, trail, problem, path, 0, *tune.prepared(problem, "cpu"))
    assert [row["path"] for row in tune.rows_of(trail)[problem]] == ["cudnn"]
    assert [row["path"] for row in trail.rows("refused")] == ["native"]
    tune.keep(work, trail)
    (entry,) = tuned.read(tmp_path / "sm_00.json").values()
    assert entry.path == "cudnn"


def test_the_dearest_are_tuned_first(tmp_path):
    work = Work("tune", tmp_path, 0.0)
    passes = list(tune.passes(work, ["cudnn"]))
    dearest, *_ = passes
    assert dearest[1] == [("cudnn", 0)]
    assert dearest[0].conv.inputs >= 24
    assert dearest[0].conv.voxels > 1e5
    once = len({problem for problem, _ in passes})
    assert {config for _, ((_, config),) in passes[:once]} == {0}  # all once before any twice
    assert {config for _, ((_, config),) in passes[once:]} == {1}
    types = [problem.type for problem, _ in passes[:once]]
    assert types.index("float32") == once - types.count("float32")  # and rare ones last


def test_the_model_is_above_the_floor():
    for conv in shapes.wanted():
        for type in paths.DTYPES:
            problem = paths.Problem(conv, type)
            for card in model.CARDS.values():
                assert card.predicted(problem) > card.floor(problem) > 0
