"""``sparkle demo``: real local peers over real libp2p finish real jobs, and a liar among them is caught.

Everything goes the way a user goes: the peers are whole nodes in processes of their own, and the jobs are
submitted through the first one's local API.
"""

import argparse
import asyncio
import secrets
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparkle_p2p.api.client import LocalClient
from sparkle_p2p.cli import output
from sparkle_p2p.cli.demo_credit import Settled, check_credit, settle
from sparkle_p2p.cli.progress import ENDED, ProgressLine, progress_text
from sparkle_p2p.cli.saving import check_writable, write_file
from sparkle_p2p.cli.swarm import LocalPeer, Swarm
from sparkle_p2p.runtime.program import INTERRUPTED
from sparkle_protocol.errors import ConfigError, SparkleError, VerificationError
from sparkle_protocol.work.price import exactly

POLL_S = 0.1
JOB_TIMEOUT_S = 300.0
PICTURE = "mandelbrot.png"
# Number of primes below 10^k (OEIS A006880): what the peers' answer is held against.
PRIMES_BELOW = {10**k: count for k, count in enumerate(
    (0, 4, 25, 168, 1229, 9592, 78498, 664579, 5761455, 50847534, 455052511, 4118054813, 37607912018)
)}  # fmt: skip


@dataclass(slots=True)
class Tally:
    """What a peer's work was worth over all jobs."""

    accepted: int = 0
    rejected: int = 0
    evidence: str = ""


@dataclass(slots=True)
class Outcome:
    """What the demo has to show."""

    peers: list[tuple[str, str, bool]]  # name, peer id, whether it was told to lie
    start_s: float
    jobs: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    picture: Path | None = None
    picture_bytes: int = 0
    credit: Settled | None = None

    def tallies(self) -> dict[str, Tally]:
        """By peer id."""
        found = {peer_id: Tally() for _, peer_id, _ in self.peers}
        for job in self.jobs:
            for peer_id, units in job["workers"].items():
                found.setdefault(peer_id, Tally()).accepted += units
            for rejection in job["rejections"]:
                tally = found.setdefault(rejection["worker"], Tally())
                tally.rejected += 1
                tally.evidence = tally.evidence or f"unit {rejection['unit']}: {rejection['reason']['sentence']}"
        return found


def demo(arguments: argparse.Namespace) -> int:
    """Run the demo; 0 if the results are right and every liar was caught.

    Raises:
        ConfigError: the numbers make no sense.
        SparkleError: something did not work; the sentence says what and where the logs are.
    """
    honest = arguments.peers - arguments.cheaters
    if honest < 2:
        raise ConfigError("at least two of the peers must be honest, or nobody could agree on a result")
    picture = Path(arguments.out) / PICTURE
    check_writable(str(picture))
    try:
        outcome = asyncio.run(_run(honest, arguments.cheaters, arguments.stop, picture))
    except asyncio.CancelledError:  # SIGTERM or a closed terminal; all peers are gone
        return INTERRUPTED
    if arguments.json:
        output.print_json(outcome_json(outcome))
    else:
        print_outcome(outcome)
    return check(outcome)


async def _run(honest: int, liars: int, stop: int, picture: Path) -> Outcome:
    task = asyncio.current_task()
    if task is not None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    begun = time.monotonic()
    net = f"demo-{secrets.token_hex(4)}"
    async with Swarm(net, honest, liars) as swarm:
        _say(f"starting {output.many(honest + liars, 'peer')} over libp2p on this computer")
        await swarm.start()
        outcome = Outcome([(peer.name, peer.peer_id, peer.lying) for peer in swarm.peers], time.monotonic() - begun)
        _say(f"all are ready after {output.duration(outcome.start_s)}; {swarm.peers[0].name} submits the jobs")
        try:
            await _run_job(swarm, outcome, "prime_count", {"start": 0, "stop": stop})
            job = await _run_job(swarm, outcome, "mandelbrot", {})
            result = await asyncio.to_thread(_client(swarm).result, job)
            _say("everybody claims the pay for accepted work")
            outcome.credit = await settle(swarm.peers, net)
        except SparkleError as error:
            raise SparkleError(f"{error}; the logs are in {swarm.directory}") from error
        write_file(picture, result["data"])
        outcome.picture, outcome.picture_bytes = picture, len(result["data"])
    return outcome


def _client(swarm: Swarm) -> LocalClient:
    return LocalClient(swarm.peers[0].home)


async def _run_job(swarm: Swarm, outcome: Outcome, kernel: str, params: dict[str, Any]) -> str:
    """Submit a job and follow it to its end; its id."""
    client = _client(swarm)
    begun = time.monotonic()
    job = await asyncio.to_thread(client.submit, kernel, params)
    document: dict[str, Any] = {}
    with ProgressLine(sys.stderr, suffix=lambda: _who(document, swarm.peers)) as line:
        try:
            async with asyncio.timeout(JOB_TIMEOUT_S):
                while document.get("state") not in ENDED:
                    document = await asyncio.to_thread(client.job, job)
                    line.show(document)
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise SparkleError(f"{kernel} was not finished within {JOB_TIMEOUT_S:.0f} s") from error
    if document["state"] != "done":
        raise SparkleError(f"{kernel} {document['state']}: {document['error'] or 'no reason is known'}")
    outcome.jobs.append(document)
    outcome.seconds[kernel] = time.monotonic() - begun
    took = output.duration(outcome.seconds[kernel])
    if sys.stderr.isatty():  # elsewhere the progress has said so
        _say(f"{kernel} {progress_text(document)}{_who(document, swarm.peers)} ({took})")
    return job


def _who(document: dict[str, Any], peers: list[LocalPeer]) -> str:
    """Who has computed how much of the job so far."""
    workers = document.get("workers", {})
    shares = [f"{peer.name.split()[-1]}:{workers[peer.peer_id]}" for peer in peers if peer.peer_id in workers]
    return f"  by peer {' '.join(shares)}" if shares else ""


def expected_primes(outcome: Outcome) -> int | None:
    """The published count for the demo's range, if there is one."""
    return PRIMES_BELOW.get(int(outcome.jobs[0]["params"]["stop"]))


def check(outcome: Outcome) -> int:
    """0 if what the peers agreed on is true and every liar was caught.

    Raises:
        VerificationError: not so.
    """
    expected, counted = expected_primes(outcome), outcome.jobs[0]["result"]
    if expected is not None and counted != expected:
        raise VerificationError(f"the peers counted {counted} primes, but there are {expected}")
    tallies = outcome.tallies()
    for name, peer_id, lying in outcome.peers:
        if lying and tallies[peer_id].accepted:
            raise VerificationError(f"{tallies[peer_id].accepted} results of the lying {name} were accepted")
        if lying and not tallies[peer_id].rejected:
            raise VerificationError(f"the lying {name} handed in nothing that could be rejected; run it again")
    if outcome.credit is not None:
        check_credit(outcome.credit, [peer_id for _, peer_id, lying in outcome.peers if lying])
    return 0


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The demo's JSON document."""
    tallies = outcome.tallies()
    return {
        "peers": [
            {
                "name": name,
                "peer_id": peer_id,
                "lying": lying,
                "accepted": tallies[peer_id].accepted,
                "rejected": tallies[peer_id].rejected,
                "evidence": tallies[peer_id].evidence or None,
            }
            for name, peer_id, lying in outcome.peers
        ],
        "primes": {"counted": outcome.jobs[0]["result"], "published": expected_primes(outcome)},
        "picture": {"file": str(outcome.picture), "size_bytes": outcome.picture_bytes},
        "units_verified": sum(job["units"]["final"] for job in outcome.jobs),
        "credit": outcome.credit.document() if outcome.credit is not None else None,
        "start_s": round(outcome.start_s, 3),
        "seconds": {kernel: round(seconds, 3) for kernel, seconds in outcome.seconds.items()},
        "jobs": outcome.jobs,
    }


def print_outcome(outcome: Outcome) -> None:
    """The demo's table and its few sentences."""
    tallies = outcome.tallies()
    rows = []
    for position, (name, peer_id, _) in enumerate(outcome.peers):
        tally = tallies[peer_id]
        standing = "rejected" if tally.rejected else "ok" if tally.accepted else "no work"
        role = "submits and computes" if position == 0 else "computes"
        credit = exactly(outcome.credit.amounts[peer_id]["balance_micro"]) if outcome.credit is not None else "–"
        rows.append((name, output.short_peer(peer_id), role, tally.accepted, tally.rejected, standing, credit))
    heads = ("PEER", "ID", "ROLE", "ACCEPTED", "REJECTED", "STANDING", "CREDIT")
    output.print_table(heads, rows, right=(3, 4, 6))
    print()
    colour = output.wants_colour(sys.stdout)
    for name, peer_id, _ in outcome.peers:
        if tallies[peer_id].rejected:
            verdict = output.paint("rejected", "bad", enabled=colour)
            print(f"{name} ({output.short_peer(peer_id)}) {verdict}: {output.clean(tallies[peer_id].evidence)}")
    primes, mandelbrot = outcome.jobs
    stop, counted = int(primes["params"]["stop"]), primes["result"]
    published = expected_primes(outcome)
    judgement = "no published count to compare with"
    if published is not None:
        judgement = "the published count" if counted == published else f"WRONG, it is {published}"
    print(f"{counted} primes below {stop}: {judgement} ({output.duration(outcome.seconds['prime_count'])})")
    print(
        f"wrote {outcome.picture} ({output.size(outcome.picture_bytes)}, "
        f"{output.duration(outcome.seconds['mandelbrot'])})"
    )
    verified = primes["units"]["final"] + mandelbrot["units"]["final"]
    executions = primes["replicas"] + mandelbrot["replicas"]
    print(f"{verified} units verified with {output.many(executions, 'execution')}")
    if outcome.credit is not None:
        print(outcome.credit.sentence())


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
