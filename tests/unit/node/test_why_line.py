"""``sparkle why JOB`` says whose turn it is, for own jobs and for those kept for others."""

from pathlib import Path

import pytest

from sparkle_p2p.node.node import Node
from sparkle_p2p.node.why_line import explain_guest, guest_job, line_reason
from sparkle_p2p.runtime.clock import boot_ns
from sparkle_protocol import facts as f
from sparkle_protocol import messages
from sparkle_protocol.effects import Tick
from sparkle_protocol.ids import PeerId, short_peer
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.line import Place
from tests.unit.node.test_node import OTHER, PRIMES, others_job, running
from tests.unit.protocol.kept_jobs import LoneKeeper, peer


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        (
            Place("own", None, 3, 0, None, 0.0),
            "This node's own jobs come before those of others. Its next unit goes to the next worker that asks.",
        ),
        (
            Place("own", None, 0, 0, None, 200.0, 1),
            "This node's own jobs come before those of others. Its next unit is probably handed out in 3 min 20 s, "
            "after 1 other job of yours.",
        ),
        (
            Place("fair", 2.5, 4, 2, None, 42.0, 2),
            "In the fair lane with weight 2.50, 2 of 3 other submitters before it. Its next unit is probably handed "
            "out in 42 s, after 2 other jobs of its owner's.",
        ),
        (
            Place("fair", 1.0, 1, 0, None, None),
            "In the fair lane with weight 1.00, nobody before it. When its next unit is handed out is too far off to "
            "foresee.",
        ),
        (
            Place("fair", 1.0, 2, 0, None, 0.0),
            "In the fair lane with weight 1.00, none of 1 other submitter before it. Its next unit goes to the next "
            "worker that asks.",
        ),
        (
            Place("lottery", 0.0, 9, None, 0.025, 3.2),
            "In the lottery lane, as too little credit flows from this node to its owner: it has a chance of 2% to "
            "be served next. Its next unit is probably handed out in 3 s.",
        ),
        (
            Place("lottery", 0.0, 9, None, 0.00025, 60.0),
            "In the lottery lane, as too little credit flows from this node to its owner: it has a chance of 0.03% "
            "to be served next. Its next unit is probably handed out in 1 min 00 s.",
        ),
    ],
)
def test_a_place_in_words(place: Place, sentence: str) -> None:
    assert line_reason(place).sentence == sentence


def test_the_numbers_behind_it() -> None:
    fair = line_reason(Place("fair", 2.123456, 4, 2, None, 42.04, 1))
    assert (fair.code, fair.numbers) == (
        "line_fair",
        {"lane": "fair", "waiting": 4, "jobs_before": 1, "weight": 2.123, "ahead": 2, "start_s": 42.0},
    )
    lottery = line_reason(Place("lottery", 0.0, 4, None, 0.05, None))
    assert (lottery.code, lottery.numbers["chance"], lottery.numbers["start_s"]) == ("line_lottery", 0.05, None)
    assert "ahead" not in lottery.numbers


def test_a_keeper_explains_a_job_that_it_keeps_for_somebody_else() -> None:
    keeper, owner = LoneKeeper(), peer(1)
    job, _ = keeper.offer(owner, 3)
    kept = guest_job(keeper.core, job.hex()[:10])
    assert kept is not None
    told = explain_guest(keeper.core, kept, keeper.now)
    assert told.subject == job.hex()
    assert told.headline.code == "guest_queued"
    assert told.headline.sentence == f"Kept here for {short_peer(owner.peer_id)}: 0 of 3 units accepted."
    assert [reason.code for reason in told.details] == ["line_fair"]
    for worker in range(3):
        keeper.lease(peer(100 + worker), 1)
    told = explain_guest(keeper.core, kept, keeper.now)
    assert (told.headline.code, [reason.code for reason in told.details]) == ("guest_running", ["line_none"])
    assert guest_job(keeper.core, "00ff") is None
    assert guest_job(keeper.core, "") is None


async def test_why_of_an_own_job_says_that_it_comes_first(tmp_path: Path) -> None:
    async with running(tmp_path / "home", work=False) as node:
        jobs = [await node.submit(PRIMES) for _ in range(2)]
        first, second = [(await node.why(job)).details for job in jobs]
        lines = [reason for details in (first, second) for reason in details if reason.code == "line_own"]
        assert [line.numbers["jobs_before"] for line in lines] == [0, 1]
        assert "This node's own jobs come before those of others." in lines[0].sentence


async def guest(node: Node, price_micro: int = 1) -> str:
    """A job of somebody who is away, which this node keeps."""
    job = others_job(price_micro=price_micro)
    keys = [OTHER.public_key, node.identity.public_key]
    keepers = f.FactCodec("test").seal(OTHER, f.KeeperSet(job.job, 0, keys, 1))
    push = messages.encode_message(messages.Push(job.job, [job.raw, keepers.raw]))
    assert isinstance(messages.decode_reply(await node.shell.serve(OTHER.peer_id, push)), messages.PushReply)
    for second in range(0, 300, 5):
        now_ns = boot_ns() + second * SECOND_NS
        node.shell.perform(node.submitter, node.submitter.handle(Tick(), now_ns))
    return job.job.hex()


async def test_a_node_takes_the_weights_of_submitters_from_outside(tmp_path: Path) -> None:
    asked: list[PeerId] = []

    def weigh(submitter: PeerId) -> float:
        asked.append(submitter)
        return 3.5

    async with running(tmp_path / "home", weigh, work=False) as node:
        told = await node.why(await guest(node))
        line = told.details[0]  # what is said of its credit depends on whether the ledger is loaded by now
        assert line.sentence.startswith("In the fair lane with weight 3.50, nobody before it.")
        assert set(asked) == {OTHER.peer_id}


async def test_without_weights_everybody_counts_the_same(tmp_path: Path) -> None:
    async with running(tmp_path / "home", work=False) as node:
        line = (await node.why(await guest(node))).details[0]
        assert (line.code, line.numbers["weight"]) == ("line_fair", 1.0)


async def test_work_that_offers_nothing_is_in_the_lottery_lane_whoever_submitted_it(tmp_path: Path) -> None:
    async with running(tmp_path / "home", lambda _submitter: 3.5, work=False) as node:
        line = (await node.why(await guest(node, price_micro=0))).details[0]
        assert line.code == "line_lottery"
        assert "as it offers less than the price of its work" in line.sentence
