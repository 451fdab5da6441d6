"""``sparkle-sim`` as its users run it: real processes, files, signals."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = ROOT / "simulations" / "scenarios"
CALM = str(SCENARIOS / "calm.toml")
QUICK = ("--peers", "12", "--set", "jobs.0.units=10", "--set", "jobs.0.unit_s=5")
LIMIT_S = 100


def simulate(*arguments: str, hash_seed: str = "0") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "sparkle_sim.cli.main", *arguments],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def manifest(folder: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads((folder / "manifest.json").read_text())
    return document


def test_a_run_tells_what_came_of_it(tmp_path: Path) -> None:
    done = simulate("run", CALM, *QUICK, "--seed", "7", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "calm, seed 7, 12 peers, full" in done.stdout
    assert "× real time" in done.stderr, "progress"
    assert "events/s" in done.stderr
    assert "ETA" in done.stderr
    assert manifest(tmp_path / "run")["interrupted"] is False
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "manifest.json", "metrics.csv", "summary.json", "latency.csv",
    }  # fmt: skip


def test_one_seed_is_one_run_in_every_process(tmp_path: Path) -> None:
    for name, seed, hash_seed in (("a", "7", "1"), ("b", "7", "2"), ("c", "8", "1")):
        done = simulate("run", CALM, *QUICK, "--seed", seed, "--out", str(tmp_path / name), hash_seed=hash_seed)
        assert done.returncode == 0, done.stderr
    a, b, c = (tmp_path / name for name in "abc")
    assert manifest(a)["trace_hash"] == manifest(b)["trace_hash"] != manifest(c)["trace_hash"]
    for name in ("metrics.csv", "summary.json", "latency.csv"):
        assert (a / name).read_bytes() == (b / name).read_bytes() != (c / name).read_bytes()


def test_json_is_one_document(tmp_path: Path) -> None:
    done = simulate("run", CALM, *QUICK, "--json")
    document = json.loads(done.stdout)
    assert document["summary"]["units_final"] == 10
    assert document["seed"] == 1
    assert len(document["trace_hash"]) == 64


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("run", "none.toml"), 2, "there is no scenario file none.toml"),
        (("run", CALM, "--set", "peers.cuont=3"), 2, "peers.cuont is not known; did you mean 'count'?"),
        (("run", CALM, "--set", "peers"), 2, "--set takes KEY=VALUE"),
        (("run", CALM, "--peers", "0"), 2, "0 is not between 1 and"),
        (("run", CALM, "--peers", "1"), 2, "jobs.0.quorum is 2, but there are only 1 peers to agree"),
        (("run", CALM, "--seconds", "-1"), 2, "-1 is not a number above 0"),
        (("run", CALM, "--seed", "x"), 2, "'x' is not a whole number"),
        (("run", CALM, "--trace"), 2, "--trace needs a folder to write to"),
        (("run", CALM, "--out", "/proc/out"), 2, "/proc/out cannot be made"),
        (("run", CALM, "--out", str(ROOT / "docs")), 2, "holds files already"),
        (("rnu", CALM), 2, "there is no command 'rnu'; did you mean 'run'?"),
        (("sweep", CALM, "--seeds", "5-1"), 2, "'5-1' ends before it begins"),
        (("sweep", CALM, "--seeds", "1", "--executor", "cloud"), 2, "takes local or dask://HOST:PORT, not 'cloud'"),
        (("sweep", CALM, "--seeds", "1", "--set", "peers.count=5,0"), 2, "peers.count must be a whole number"),
        (("plot", str(ROOT / "docs")), 2, "manifest.json cannot be read"),
    ],
)
def test_what_cannot_work_gets_one_sentence(arguments: tuple[str, ...], code: int, sentence: str) -> None:
    done = simulate(*arguments)
    assert done.returncode == code
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_its_results_and_marks_them(tmp_path: Path, number: signal.Signals) -> None:
    long_run = ("--peers", "30", "--set", "jobs.0.units=100000", "--seconds", "100000")
    process = subprocess.Popen(
        [sys.executable, "-m", "sparkle_sim.cli.main", "run", CALM, *long_run, "--out", str(tmp_path), "--trace"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    process.stderr.readline()  # its first line of progress
    process.send_signal(number)
    output, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert "interrupted after" in errors
    assert "Traceback" not in errors
    assert "calm, seed 1" in output
    assert manifest(tmp_path)["interrupted"] is True
    assert json.loads((tmp_path / "summary.json").read_text())["interrupted"] is True
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) > 1
    from sparkle_sim.trace_file import TraceReader

    reader = TraceReader(tmp_path)
    assert sum(1 for _ in reader) == manifest(tmp_path)["trace_entries"]
    assert reader.complete


def test_a_sweep_runs_each_seed_with_each_value(tmp_path: Path) -> None:
    done = simulate(
        "sweep", CALM, *QUICK[:2], "--seeds", "1-3", "--workers", "1", "--seconds", "60",
        "--set", "jobs.0.units=4,8", "--set", "jobs.0.unit_s=3", "--out", str(tmp_path / "sweep"), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    with (tmp_path / "sweep" / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["jobs.0.units"], row["seed"]) for row in rows] == [(n, s) for n in "48" for s in "123"]
    assert [row["trace_hash"] for row in rows] == [run["trace_hash"] for run in document["runs"]]
    assert len({row["trace_hash"] for row in rows}) == 6
    assert [group["runs"] for group in document["groups"]] == [3, 3]
    assert manifest(tmp_path / "sweep")["interrupted"] is False

    alone = simulate(
        "run", CALM, *QUICK[:2], "--seconds", "60", "--seed", "2", "--json",
        "--set", "jobs.0.units=8", "--set", "jobs.0.unit_s=3",
    )  # fmt: skip
    assert json.loads(alone.stdout)["trace_hash"] == rows[4]["trace_hash"], "a row can be looked at by itself"

    drawn = simulate("plot", str(tmp_path / "sweep"), "--format", "svg")
    assert drawn.returncode == 0, drawn.stderr
    assert "throughput (units/s)" in (tmp_path / "sweep" / "sweep-units-per-s.svg").read_text()


def test_an_interrupted_sweep_keeps_its_rows_and_leaves_no_process(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "sparkle_sim.cli.main", "sweep", CALM, *QUICK, "--seeds", "1-10000"),
            *("--workers", "1", "--out", str(tmp_path)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    table = tmp_path / "sweep.csv"
    assert process.stderr is not None
    process.stderr.readline()
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted after" in errors
    assert manifest(tmp_path)["interrupted"] is True
    assert len(table.read_text().splitlines()) == 1 + int(str(manifest(tmp_path)["ended"]))
    assert psutil.wait_procs(workers, timeout=LIMIT_S)[1] == []


def test_dask_is_asked_for_in_a_sentence_where_it_is_missing(tmp_path: Path) -> None:
    (tmp_path / "distributed.py").write_text("raise ImportError('none here')")
    done = subprocess.run(
        [sys.executable, "-m", "sparkle_sim.cli.main", "sweep", CALM, "--seeds", "1", "--executor", "dask://x:1"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 2
    assert "needs Dask: install it with 'pip install distributed'" in done.stderr


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; from sparkle_sim.cli.parser import build; build(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"numpy", "msgspec", "matplotlib", "sparkle_sim.world", "asyncio", "multiprocessing"}
