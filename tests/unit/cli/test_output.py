"""What numbers, tables and progress look like, and what a terminal never gets."""

import io
import random
import struct
from typing import Any

import pytest

from sparkle_p2p.api.words import bar
from sparkle_p2p.cli import output
from sparkle_p2p.cli.demo import PRIMES_BELOW, Outcome, check, outcome_json, print_outcome
from sparkle_p2p.cli.liar import falsify
from sparkle_p2p.cli.logs import LineWriter
from sparkle_p2p.cli.progress import ProgressLine, follow
from sparkle_protocol.errors import VerificationError
from sparkle_worker.kernels.base import Kernel
from sparkle_worker.kernels.registry import KERNELS


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"), (0, "0.0 s"), (0.84, "0.8 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"),
        (7800, "2 h 10 min"), (273_600, "3 d 4 h"),
    ],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert output.duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (104_857_600, "105 MB"), (3e12, "3000 GB")]
)
def test_sizes(size: float, text: str) -> None:
    assert output.size(size) == text


def test_colour_only_where_it_is_wanted() -> None:
    assert output.wants_colour(Terminal(), {})
    assert not output.wants_colour(Terminal(), {"NO_COLOR": "1"})
    assert not output.wants_colour(Terminal(), {"TERM": "dumb"})
    assert not output.wants_colour(io.StringIO(), {})


def test_strangers_words_cannot_steer_the_terminal() -> None:
    lines = output.table(("A",), [("evil\x1b[2J\r\nrow",)])
    assert lines == ["A", "evil�[2J��row"]


def test_bars_are_of_one_width() -> None:
    assert {len(bar(step / 97)) for step in range(98)} == {26}
    assert bar(0).strip("▕▏") == " " * 24
    assert bar(1) == bar(7) == "▕" + "█" * 24 + "▏"


def job(final: int, total: int = 100, **changes: Any) -> dict[str, Any]:
    return {
        "kernel": "prime_count", "state": "running", "units": {"final": final, "total": total}, "rejected": 0,
        "eta_s": 12.0, "replicas": final, **changes,
    }  # fmt: skip


def test_progress_moves_in_a_terminal_and_is_sparse_elsewhere() -> None:
    terminal, file = Terminal(), io.StringIO()
    with ProgressLine(terminal) as moving, ProgressLine(file) as plain:
        for final in range(101):
            for line in (moving, plain):
                line.show(job(final, state="done" if final == 100 else "running"))
    assert terminal.getvalue().count("\n") == 0
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert file.getvalue().splitlines()[0] == "prime_count 0/100 units, 12 s left"
    assert 10 <= len(file.getvalue().splitlines()) <= 12
    assert file.getvalue().splitlines()[-1] == "prime_count 100/100 units, done"


def test_a_job_that_cannot_be_foreseen_shows_that_time_passes() -> None:
    terminal = Terminal()
    with ProgressLine(terminal) as line:
        for age_s in (2.0, 7.0, 75.0):
            line.show(job(0, 1, eta_s=None, age_s=age_s))
    ends = [shown.rpartition("units, ")[2] for shown in terminal.getvalue().split("\r\x1b[K") if shown]
    assert ends == ["estimating", "estimating for 7.0 s", "estimating for 1 min 15 s"]


class StandingJob:
    """A node of which one job waits for a worker for a minute, and ends then."""

    def __init__(self, code: str) -> None:
        self.now, self.code = 0.0, code

    def job(self, _: str) -> dict[str, Any]:
        units = {"final": 3, "total": 10, "leased": 1 if self.now < 20 else 0}
        return job(3, state="done" if self.now > 60 else "running", units=units, eta_s=None)

    def why(self, _: str) -> dict[str, Any]:
        headline = {"code": "job_running", "sentence": "3 of 10 units accepted, 7 for a worker."}
        return {"headline": headline, "details": [{"code": self.code, "sentence": "2 more workers are needed."}]}

    def status(self) -> dict[str, Any]:
        return {"state": "paused", "reason": {"sentence": "Paused by you."}}

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("wants_workers", "2 more workers are needed."),
        ("policy", "3 of 10 units accepted, 7 for a worker. This node is paused: Paused by you."),
    ],
)
def test_whoever_waits_is_told_once_why_a_job_stands_still(code: str, said: str) -> None:
    node, file = StandingJob(code), io.StringIO()
    document = follow(node, "ab" * 32, ProgressLine(file), lambda: node.now, node.sleep)  # type: ignore[arg-type]
    assert document["state"] == "done"
    assert file.getvalue().splitlines() == [
        "prime_count 3/10 units, estimating",
        f"waiting: {said} 'sparkle why abababababab' tells more",
        "prime_count 3/10 units, done",
    ]


def test_a_line_writer_survives_a_closed_reader() -> None:
    tried: list[str] = []

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            tried.append(text)
            raise BrokenPipeError

    writer = LineWriter(Closed())
    for number in range(3 * LineWriter.LIMIT):
        writer.write(str(number))
    writer.close()
    assert 1 <= len(tried) <= 2  # nobody reads: it gives up instead of trying each line


def unit_of(name: str) -> tuple[Kernel, dict[str, Any]]:
    kernel = KERNELS[name]
    given = {"prime_count": {"stop": 10_000}, "mandelbrot": {"width": 8, "height": 8}, "collatz": {"stop": 500}}
    given["monte_carlo_pi"] = {"samples": 10_000}
    params = kernel.validate(given[name])
    return kernel, kernel.unit(params, 2, 1)


@pytest.mark.parametrize("name", ["prime_count", "mandelbrot", "collatz", "monte_carlo_pi"])
def test_every_lie_is_wrong_plausible_and_liars_rarely_agree(name: str) -> None:
    kernel, unit = unit_of(name)
    truth = kernel.compute(unit, lambda _: None)
    lies = [falsify(name, unit, truth) for _ in range(200)]
    assert truth not in lies
    assert len(set(lies)) > 1
    for lie in lies:
        kernel.check_result(unit, lie)


def test_a_lie_about_an_unknown_kernel_is_still_a_lie() -> None:
    truth = random.Random(1).randbytes(9)
    assert falsify("else", {}, truth) != truth
    assert falsify("prime_count", {}, struct.pack("<Q", 0)) != struct.pack("<Q", 0)


def outcome(counted: int = 50847534, **liar: int) -> Outcome:
    rejections = [
        {"unit": 7, "worker": "liar", "reason": {"sentence": "two others agree on another result"}}
    ] * liar.get("rejected", 1)
    workers = {"first": 3, **({"liar": liar["accepted"]} if liar.get("accepted") else {})}
    units = {"final": 4, "total": 4}
    jobs = [
        {"params": {"stop": 10**9}, "result": counted, "workers": workers, "rejections": rejections, "units": units},
        {"params": {}, "result": {}, "workers": {"first": 1}, "rejections": [], "units": units},
    ]
    for record in jobs:
        record["replicas"] = 5
    peers = [("peer 1", "first", False), ("peer 2", "liar", True)]
    return Outcome(peers, 2.5, jobs, {"prime_count": 1.0, "mandelbrot": 2.0})


def test_the_demo_names_the_liar_with_its_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(outcome()) == 0
    print_outcome(outcome())
    text = capsys.readouterr().out
    assert "peer 2 (liar) rejected: unit 7: two others agree on another result" in text
    assert "50847534 primes below 1000000000: the published count" in text
    assert outcome_json(outcome())["peers"][1]["rejected"] == 1
    assert PRIMES_BELOW[10**9] == 50847534


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (outcome(50847535), "counted 50847535 primes, but there are 50847534"),
        (outcome(accepted=1), "1 results of the lying peer 2 were accepted"),
        (outcome(rejected=0), "nothing that could be rejected"),
    ],
)
def test_a_demo_that_went_wrong_does_not_claim_success(broken: Outcome, expected: str) -> None:
    with pytest.raises(VerificationError, match=expected):
        check(broken)
