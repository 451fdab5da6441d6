"""Three friends on one network who begin with nothing: what each may do, who checks, who is paid, who is known.

At each step what ``status`` and ``why`` say is compared with what happened: the job's own record, the books of all,
the standings in the database.
"""

import asyncio
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from tests.e2e.ledger.books import account, book_of, settled
from tests.e2e.node.processes import NodeProcess, Swarm

PRIMES_TO_1E8 = 5_761_455
SMALL = {"stop": 10**8}
NEEDED = 60  # comparisons after which a worker is known
UNITS = 64


class Told:
    """What ``why`` says, by the codes of its reasons."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.headline = document["headline"]
        self.details = document["details"]
        self.codes = {reason["code"] for reason in self.details}

    def one(self, code: str) -> dict[str, Any]:
        """The only reason of a code."""
        (reason,) = self.all(code)
        return reason

    def all(self, code: str) -> list[dict[str, Any]]:
        return [reason for reason in self.details if reason["code"] == code]


async def why(node: NodeProcess, subject: str) -> Told:
    return Told(await asyncio.to_thread(node.client.why, subject))


def passes(node: NodeProcess) -> dict[str, int]:
    """Comparisons that each worker passed, as the node's database has them."""
    with closing(sqlite3.connect(f"file:{node.home / 'node.db'}?mode=ro", uri=True)) as db:
        return dict(db.execute("SELECT peer, SUM(passes) FROM standings GROUP BY peer"))


async def says_with_how_many(node: NodeProcess, count: int, code: str) -> dict[str, Any]:
    """The status once it counts so many nodes, in which everything that counts nodes or workers agrees."""

    async def look() -> dict[str, Any] | None:
        status = await node.status()
        return status if status["safety"]["peers"] == count else None

    status: dict[str, Any] = await node.swarm.until(look, f"{node.name} counts {count} nodes")
    assert status["peers"] == count - 1
    assert status["safety"]["code"] == code
    assert status["network"] == ("alone" if count == 1 else "connected")
    told = status["safety"]["sentence"]
    assert (f"With {count} nodes, this one included" in told) == (count > 1)
    lonely = "No worker is known" in told or "Only one worker is" in told
    assert lonely == (count > 1 and status["known_workers"] < 2)
    return status


async def check_job(owner: NodeProcess, job: str) -> dict[str, Any]:
    """What ``why`` says of a finished job and of each of its units, against its record and the settled book."""
    book = await settled(job, owner)
    document = await owner.job(job)
    told = await why(owner, job)
    assert told.headline["code"] == "job_done"
    assert told.headline["numbers"]["replicas"] == document["replicas"]
    assert {one["numbers"]["peer"]: one["numbers"]["units"] for one in told.all("accepted_from")} == document[
        "workers"
    ]
    price = book.record(bytes.fromhex(job)).price_micro  # type: ignore[union-attr]
    others = sum(count for peer, count in document["workers"].items() if peer != owner.peer_id)
    escrow = told.one("escrow")["numbers"]
    assert escrow["paid_micro"] == others * price
    assert (escrow["left_micro"], escrow["owed_micro"]) == (0, 0)
    assert escrow["set_aside_micro"] == escrow["paid_micro"] + escrow["released_micro"]
    paid = 0
    for unit in range(document["units"]["total"]):
        one = await why(owner, f"{job}/{unit}")
        assert one.headline["code"] == "final"
        assert {"pay_pending", "pay_unclaimed"}.isdisjoint(one.codes)
        paid += len(one.all("paid"))
        assert ("accepted_own" in one.codes) != ("compared" in one.codes or "believed" in one.codes)
        if "compared" in one.codes:
            assert all("alone its answer decides nothing" in reason["sentence"] for reason in one.all("newcomer"))
    assert paid == others
    return document


@pytest.mark.timeout(400)
async def test_three_friends_from_nothing(swarm: Swarm) -> None:
    ann, ben, cat = (swarm.node(name) for name in ("ann", "ben", "cat"))

    # Ann alone: her own node computes and decides; nobody is paid.
    await ann.spawn()
    await ann.wait_ready()
    status = await says_with_how_many(ann, 1, "alone")
    assert (status["reason"]["code"], status["known_workers"], status["credit_micro"]) == ("no_peers", 0, 0)
    job = await ann.submit("prime_count", 8, **SMALL)
    assert (await ann.done(job))["result"] == PRIMES_TO_1E8
    document = await check_job(ann, job)
    assert document["workers"] == {ann.peer_id: 8}
    assert document["replicas"] == 8
    assert (await ann.status())["credit_micro"] == 0
    assert (await ann.sparkle("doctor")).code == 0

    # Ben finds her on the local network. Both compute; each one's own node decides its jobs; the other is paid.
    await ben.spawn()
    await ben.wait_ready()
    for node, other in ((ann, ben), (ben, ann)):
        await node.event("peer_up", peer=other.peer_id)
        await says_with_how_many(node, 2, "submitter_only")
    stranger = await why(ben, ann.peer_id)
    assert stranger.codes >= {"standing_unknown", "votes_decide"}
    job = await ben.submit("prime_count", 24, stop=2 * 10**9)
    await ben.done(job)
    document = await check_job(ben, job)
    assert document["workers"][ben.peer_id] > 0  # its own answers decide
    earned = document["workers"].get(ann.peer_id, 0)
    helper = await why(ben, ann.peer_id)
    assert helper.headline["numbers"]["accepted"] == earned
    assert sum(reason["numbers"]["passes"] for reason in helper.all("standing_newcomer")) == earned
    assert helper.one("account")["numbers"]["spent_on_micro"] == -(await ben.status())["credit_micro"]

    # Cat submits and computes nothing: two that agree decide, both are paid, and by that she comes to know them.
    await cat.spawn("--no-mdns", "--no-work", "--bootstrap", ann.address, "--bootstrap", ben.address)
    await cat.wait_ready()
    for node in (ann, ben):
        await cat.event("peer_up", peer=node.peer_id)
    for node in (ann, ben, cat):
        await says_with_how_many(node, 3, "submitter_only")
    job = await cat.submit("prime_count", UNITS, **SMALL)
    await cat.done(job)
    document = await check_job(cat, job)
    answered = document["workers"]
    assert answered.keys() == {ann.peer_id, ben.peer_id}
    assert min(answered.values()) >= NEEDED  # the last few may be believed without a second answer
    late = document["replicas"] - sum(answered.values())
    assert 0 <= late <= 2  # who answered once the job was done is neither paid nor punished
    for node in (ann, ben):
        assert (await asyncio.to_thread(book_of, cat)).account(account(node)).earned_micro > 0

    async def known() -> dict[str, Any] | None:
        status = await cat.status()
        return status if status["known_workers"] == 2 else None

    await swarm.until(known, "cat knows two workers")
    status = await says_with_how_many(cat, 3, "submitter_only")
    said = {}
    for node in (ann, ben):
        told = await why(cat, node.peer_id)
        said[node.peer_id] = told.one("standing_known")["numbers"]["passes"]
        assert NEEDED <= said[node.peer_id] <= answered[node.peer_id]
        assert "votes_decide" not in told.codes
    await swarm.until(lambda: passes(cat) == said, "standings are stored")

    # Ann leaves. Cat says so, nobody forgets her, and what needs two workers waits for her.
    assert await ann.terminate() == 0
    await cat.event("peer_down", peer=ann.peer_id)
    await says_with_how_many(cat, 2, "submitter_only")
    gone = await why(cat, ann.peer_id)
    assert gone.headline["numbers"]["connected"] is False
    assert gone.headline["numbers"]["accepted"] == answered[ann.peer_id]
    job = await cat.submit("prime_count", 4, "critical", **SMALL)
    await cat.job_when(job, lambda d: d["units"]["committed"] == 4, "ben has answered")
    waiting = await why(cat, job)
    assert waiting.one("wants_workers")["numbers"] == {"units": 4, "workers": 1, "more": 2}
    assert (await cat.status())["reason"]["code"] == "work_disabled"
