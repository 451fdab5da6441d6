"""A run's folder: the same for the same seed, whole or marked, and readable by the programs that come after."""

import csv
import json
import os
import signal
from pathlib import Path

import pytest
from msgspec.structs import replace

from sparkle_protocol.errors import ConfigError, StorageError
from sparkle_sim import outputs
from sparkle_sim.metrics import Latencies, sample_every_s
from sparkle_sim.plots import _faults, _in_words, plot_folder
from sparkle_sim.running import Outcome, Progress, Stop, population_row, population_summary, run_scenario
from sparkle_sim.scenario import Fault, JobPlan, Peers, Scenario
from sparkle_sim.trace import Entry, Trace
from sparkle_sim.trace_file import FILE, TraceReader, TraceWriter

SMALL = Scenario("small", seconds=120.0, peers=Peers(count=12), jobs=[JobPlan(units=12, unit_s=5.0)])


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A small run with its folder."""
    folder = tmp_path_factory.mktemp("run")
    return folder, run_scenario(SMALL, 3, folder=folder, trace=True)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_manifest_says_what_run_it_was(ran: tuple[Path, Outcome]) -> None:
    manifest = json.loads((ran[0] / "manifest.json").read_text())
    assert (manifest["seed"], manifest["peers"], manifest["engine"]) == (3, 12, "full")
    assert manifest["interrupted"] is False
    assert len(manifest["trace_hash"]) == 64
    assert manifest["events"] > 1000
    assert 0 < manifest["virtual_seconds"] <= 120
    assert manifest["wall_seconds"] > 0
    assert manifest["version"]
    assert manifest["scenario"]["jobs"][0]["units"] == 12, "all values, also those that the file leaves out"


def test_the_time_series_ends_with_the_summary(ran: tuple[Path, Outcome]) -> None:
    folder, outcome = ran
    series, summary = rows(folder / "metrics.csv"), json.loads((folder / "summary.json").read_text())
    assert summary == outcome.summary
    last = series[-1]
    assert int(last["units_final"]) == summary["units_final"] == summary["units"] == 12
    assert int(last["wrong_finals"]) == summary["wrong_finals"] == 0
    assert int(last["messages"]) == summary["messages"]
    assert int(last["online"]) == 12
    times = [float(row["time_s"]) for row in series]
    assert times[:3] == [1.0, 2.0, 3.0]
    assert times == sorted(times)
    done = sum(float(row["units_per_s"]) for row in series)
    assert done == pytest.approx(12), "units per second over seconds make the units"


def test_what_goes_wrong_is_seen_in_the_time_series(tmp_path: Path) -> None:
    killed = replace(SMALL, until_done=False, seconds=60.0, faults=[Fault("kill", at_s=30.0, for_s=10.0, share=0.5)])
    run_scenario(killed, 3, folder=tmp_path)
    online = {float(row["time_s"]): int(row["online"]) for row in rows(tmp_path / "metrics.csv")}
    assert (online[29.0], online[35.0], online[50.0]) == (12, 6, 12)


def test_latencies_are_a_distribution_of_all_units(ran: tuple[Path, Outcome]) -> None:
    table = rows(ran[0] / "latency.csv")
    counts = [int(row["units"]) for row in table]
    assert counts == sorted(counts)
    assert counts[-1] == 12
    latency = ran[1].summary["latency_s"]
    assert 5.0 < latency["p50"] <= latency["p90"] <= latency["p99"] < 120.0


def test_quantiles_are_within_two_percent() -> None:
    latencies = Latencies()
    for number in range(1, 1001):
        latencies.add(number / 10)
    assert latencies.quantile(0.5) == pytest.approx(50.0, rel=0.021)
    assert latencies.quantile(0.99) == pytest.approx(99.0, rel=0.021)
    assert Latencies().quantile(0.5) is None


def test_long_runs_are_sampled_more_coarsely() -> None:
    assert sample_every_s(60.0) == 1.0
    assert sample_every_s(7 * 86_400.0) == 61.0


# --- the trace --------------------------------------------------------------------------------------------------


def test_a_trace_file_has_all_that_the_hash_covers(ran: tuple[Path, Outcome]) -> None:
    folder, outcome = ran
    reader, again = TraceReader(folder), Trace()
    assert reader.about["seed"] == 3
    assert reader.about["scenario"] == outcome.manifest["scenario"]
    for entry in reader:
        again.note(entry.at_ns, entry.peer, entry.what, entry.detail)
    assert reader.complete
    assert (again.count, again.hash) == (outcome.manifest["trace_entries"], outcome.manifest["trace_hash"])


def test_a_trace_of_a_run_that_was_killed_can_be_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / FILE
    with TraceWriter(path, {"seed": 1}) as writer:
        for number in range(200_000):
            writer.write(Entry(number, number % 7, "send Beat", str(number * 2654435761 % 2**32)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    reader = TraceReader(tmp_path)
    entries = list(reader)
    assert not reader.complete
    assert 50_000 < len(entries) < 200_000
    assert [entry.at_ns for entry in entries] == list(range(len(entries)))


@pytest.mark.parametrize("content", [b"", b"something else", b"\x28\xb5\x2f\xfd broken"])
def test_another_file_is_no_trace(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ConfigError, match="is no trace of sparkle-sim"):
        TraceReader(tmp_path / "x")
    with pytest.raises(ConfigError, match="cannot be read"):
        TraceReader(tmp_path / "none")


def test_a_full_disk_is_said_in_a_sentence() -> None:
    full = Path("/dev/full")
    with pytest.raises(StorageError, match=r"cannot write .*: file exists"):
        TraceWriter(full, {})
    with pytest.raises(StorageError, match="cannot write"):
        outputs.write_json(Path("/proc/manifest.json"), {})


# --- interruption -----------------------------------------------------------------------------------------------


def test_a_run_that_is_stopped_keeps_what_there_is_and_says_so(tmp_path: Path) -> None:
    stop = Stop()

    def watch(progress: Progress) -> None:
        if progress.virtual_s >= 30.0:
            stop.request()

    outcome = run_scenario(SMALL, 3, folder=tmp_path, on_progress=watch, stop=stop)
    assert outcome.interrupted
    for name in ("manifest.json", "summary.json"):
        assert json.loads((tmp_path / name).read_text())["interrupted"] is True
    assert outcome.manifest["virtual_seconds"] == 30.0
    assert [float(row["time_s"]) for row in rows(tmp_path / "metrics.csv")][-1] == 30.0


def test_a_run_in_progress_counts_as_interrupted(tmp_path: Path) -> None:
    seen = []

    def look(progress: Progress) -> None:
        seen.append(json.loads((tmp_path / "manifest.json").read_text())["interrupted"])
        seen.append((tmp_path / "metrics.csv").read_text().endswith("\n"))

    run_scenario(SMALL, 3, folder=tmp_path, on_progress=look)
    assert all(seen)
    assert json.loads((tmp_path / "manifest.json").read_text())["interrupted"] is False


def test_a_stop_between_events_ends_a_long_second_too() -> None:
    """As from a signal handler: the kernel is told at once, not at the end of its slice."""
    called: list[int] = []
    stop = Stop(at_once=[lambda: called.append(signal.SIGINT)])
    stop.request()
    assert stop()
    assert called == [signal.SIGINT]


# --- folders ----------------------------------------------------------------------------------------------------


def test_a_folder_must_be_new_or_empty(tmp_path: Path) -> None:
    assert outputs.new_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "a" / "file").touch()
    with pytest.raises(ConfigError, match="holds files already"):
        outputs.new_folder(tmp_path / "a")
    with pytest.raises(ConfigError, match="there is a file of this name"):
        outputs.new_folder(tmp_path / "a" / "file")
    with pytest.raises(ConfigError, match="there is a file of this name"):
        outputs.new_folder(tmp_path / "a" / "file" / "below")


def test_a_folder_must_be_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, who runs tests in containers, may write everywhere
    with pytest.raises(ConfigError, match="may not be written; choose another --out"):
        outputs.new_folder(tmp_path)


# --- plots ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format_", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_plots_are_made_and_the_same_each_time(ran: tuple[Path, Outcome], format_: str, head: bytes) -> None:
    made = plot_folder(ran[0], format_)
    assert {path.name for path in made} == {
        f"{name}.{format_}" for name in ("overview", "units", "online", "latency", "messages")
    }
    before = [path.read_bytes() for path in made]
    assert all(raw.startswith(head) for raw in before)
    assert [path.read_bytes() for path in plot_folder(ran[0], format_)] == before
    if format_ == "svg":
        text = made[0].read_text()
        assert "virtual time (s)" in text
        assert "small: 12 peers, seed 3" in text


def test_faults_are_shown_where_they_are(ran: tuple[Path, Outcome], tmp_path: Path) -> None:
    assert ">fault<" not in plot_folder(ran[0], "svg", tmp_path)[0].read_text()
    killed = replace(SMALL, faults=[Fault("kill", at_s=30.0, for_s=10.0, share=0.5)])
    (tmp_path / "killed").mkdir()
    run_scenario(killed, 3, folder=tmp_path / "killed")
    assert plot_folder(tmp_path / "killed", "svg")[0].read_text().count(">fault<") == 1
    spans = _faults([{"at_s": 5.0, "for_s": 0.0}, {"at_s": 5.0, "for_s": 9.0}, {"at_s": 99.0, "for_s": 1.0}], 50.0)
    assert spans == [(5.0, 14.0)]


def test_axes_have_words_and_units() -> None:
    scenario = {"adversaries": [{"kind": "/somewhere/own.py:Idle"}]}
    assert _in_words("adversaries.0.share", scenario) == "share of adversaries (Idle)"
    assert _in_words("peers.churn.session_s", scenario) == "peers.churn.session (s)"
    assert _in_words("jobs.0.quorum", scenario) == "jobs.0.quorum"


def test_what_is_no_run_cannot_be_plotted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"manifest\.json cannot be read"):
        plot_folder(tmp_path, "png")
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "metrics.csv").write_text("time_s,online\n")
    with pytest.raises(ConfigError, match="has no samples"):
        plot_folder(tmp_path, "png")


# --- the other engine -------------------------------------------------------------------------------------------


def test_figures_of_both_engines_have_the_same_names(ran: tuple[Path, Outcome]) -> None:
    row = {
        "t_s": 60.0, "online": 9.0, "computing": 4, "units_done": 10, "units_per_s": 0.1, "wrong_final": 1, "dead": 0,
        "replicas_per_unit": 2.2, "wasted_share": 0.0, "open_units": 2,
    }  # fmt: skip
    told = population_row(row)
    assert list(told)[:6] == ["time_s", "online", "units_final", "units_per_s", "replicas", "wrong_finals"]
    assert told["replicas"] == 22
    job = {"units": 10, "submitted_s": 5.0, "ended_s": 50.0}
    summary = population_summary(
        {"seed": 1, "complete": True, "units_done": 10, "wrong_final": 1, "results_outvoted": 2, "jobs": [job]}
    )
    assert (summary["units_final"], summary["makespan_s"], summary["rejected"]) == (10, 45.0, 2)
    assert {"units", "units_final", "wrong_finals", "makespan_s", "rejected"} <= summary.keys() & ran[
        1
    ].summary.keys()
