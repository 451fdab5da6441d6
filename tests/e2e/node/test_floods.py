"""A stranger that floods a keeper: with jobs, with commitments to work it never took, with facts of nobody."""

import contextlib

from sparkle_protocol import messages
from sparkle_protocol.errors import SparkleError
from sparkle_protocol.facts import (
    MAX_BATCH,
    CommitItem,
    Commits,
    Deadlines,
    Fact,
    JobSpec,
    KeeperSet,
    Policy,
    Reset,
    Resources,
    VerdictItem,
    Verdicts,
)
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId, key_from_peer_id
from sparkle_protocol.work.placement import threshold
from sparkle_protocol.work.quota import PER_SUBMITTER
from tests.e2e.node.processes import Swarm
from tests.e2e.node.test_hostile_peer import Hostile, resident_bytes
from tests.e2e.node.test_keepers import known

PRIMES_TO_1E9 = 50_847_534
HUGE = 100_000
BOGUS_COMMITS = 10_000
ROOM_BYTES = 150_000_000  # what a keeper may grow by, however much it is offered


def huge_job(peer: Hostile, number: int) -> tuple[Fact, Fact]:
    """A job of the stranger and the set that makes the owner, with itself and two that nobody knows, its keepers."""
    nonce = number.to_bytes(16, "big")
    params: dict[str, str | int | bool | float] = {"stop": 10**12}
    policy, limits = Policy("fast", 1), Deadlines()
    spec = JobSpec("prime_count", 1, params, HUGE, "exact", policy, Resources(), limits, bytes(32), nonce, 0)
    sealed = peer.codec.seal(peer.identity, spec)
    others = [Identity.generate().public_key for _ in range(2)]
    keys = [peer.identity.public_key, key_from_peer_id(PeerId(peer.owner.peer_id)), *others]
    return sealed, peer.codec.seal(peer.identity, KeeperSet(sealed.job, 0, keys, threshold(len(keys))))


async def test_a_flood_of_jobs_is_bounded_and_one_of_bogus_facts_ends_in_a_ban(swarm: Swarm) -> None:
    """Kept as far as one submitter may; the rest is refused. The owner's own job is done all the while."""
    (owner,) = await swarm.start(1)
    before = resident_bytes(owner)
    peer = Hostile(owner)
    try:
        await peer.join()
        replies: list[messages.Reply] = []
        specs: list[Fact] = []
        for number in range(PER_SUBMITTER.units // HUGE + 10):
            spec, keepers = huge_job(peer, number)
            specs.append(spec)
            replies.append(await peer.ask(messages.Push(spec.job, [spec.raw, keepers.raw])))
        taken = sum(isinstance(reply, messages.PushReply) for reply in replies)
        refused = [reply for reply in replies if isinstance(reply, messages.Refusal)]
        assert 1 <= taken <= PER_SUBMITTER.units // HUGE
        assert {reply.code for reply in refused} == {"quota"}
        assert taken + len(refused) == len(replies)

        job = await owner.submit("prime_count", 20, stop=10**9)
        stranger = Identity.generate()
        verdict = VerdictItem(0, 0, bytes(32), [stranger.public_key], [])
        for payload in (Reset(specs[0].job, 0, 1, "not mine to say"), Verdicts(specs[0].job, [verdict])):
            forged = peer.codec.seal(stranger, payload)
            await peer.ask(messages.Push(forged.job, [forged.raw]))
        kept = known(owner, specs[0].job.hex())
        assert kept is not None
        assert {type(fact.payload) for fact in kept.facts()} == {JobSpec, KeeperSet}
        broken = bytearray(peer.codec.seal(peer.identity, Reset(specs[0].job, 0, 1, "broken")).raw)
        broken[-1] ^= 1
        reply = await peer.ask(messages.Push(specs[0].job, [bytes(broken)]))
        assert isinstance(reply, messages.Refusal)
        assert reply.code == "protocol"
        await owner.event("violation", peer=peer.peer_id)
        assert owner.count("violation", peer=peer.peer_id) == 1

        with contextlib.suppress(SparkleError):
            for start in range(0, BOGUS_COMMITS, MAX_BATCH):
                items = [
                    CommitItem(unit, 0, bytes(32)) for unit in range(start, min(start + MAX_BATCH, BOGUS_COMMITS))
                ]
                await peer.report(peer.codec.seal(peer.identity, Commits(specs[0].job, items)), job=specs[0].job)
        await owner.event("peer_banned", peer=peer.peer_id)
        assert (await owner.done(job))["result"] == PRIMES_TO_1E9
    finally:
        await peer.overlay.stop()
    assert (await owner.status())["state"] in ("idle", "working")
    assert resident_bytes(owner) < before + ROOM_BYTES
    told = await owner.sparkle("why", peer.peer_id)
    assert told.code == 0
    assert "this node does not deal with it for a while" in told.out
    assert "Traceback" not in owner.log.read_text()
