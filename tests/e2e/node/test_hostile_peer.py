"""A peer that keeps to libp2p and breaks every rule above it, against a real node with an open job.

It speaks through the production overlay with its own key. Each offence is refused, recorded with its reason, and
after a few the offender is hung up on; the node answers its owner all the while, and honest workers finish the job.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from sparkle_p2p.net.libp2p import Libp2pOverlay
from sparkle_p2p.net.overlay import OverlayEvents
from sparkle_protocol import messages
from sparkle_protocol.errors import RemoteProtocolError, SparkleError
from sparkle_protocol.facts import (
    CommitItem,
    Commits,
    Deadlines,
    Fact,
    FactCodec,
    JobSpec,
    LeaseItem,
    Leases,
    Policy,
    Resources,
    RevealItem,
    Reveals,
    commitment,
)
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId, PeerId, ResultHash, hash_result
from tests.e2e.node.processes import NodeProcess, Swarm

pytestmark = pytest.mark.asyncio(loop_scope="module")

KERNELS = ["prime_count@1"]
NONCE = b"n" * 16


class Hostile:
    """A peer of the owner's network whose every message the test writes."""

    def __init__(self, owner: NodeProcess) -> None:
        self.owner = owner
        self.identity = Identity.generate()
        self.codec = FactCodec(owner.swarm.net)
        self.overlay = Libp2pOverlay(
            self.identity, net=owner.swarm.net, listen=["/ip4/127.0.0.1/tcp/0"], agent="hostile", mdns=False
        )
        self.down = asyncio.Event()
        self.job = JobId(bytes(32))
        self.leased: list[tuple[int, int]] = []

    @property
    def peer_id(self) -> PeerId:
        return self.identity.peer_id

    async def join(self) -> None:
        events = OverlayEvents(peer_down=lambda _peer, _reason: self.down.set())
        await self.overlay.start(self._serve, events)
        await self.overlay.connect(self.owner.address)
        await self.owner.event("peer_up", peer=self.peer_id)

    async def _serve(self, _peer: PeerId, _payload: bytes) -> bytes:
        return messages.encode_message(messages.Ok())

    async def send(self, payload: bytes) -> bytes:
        async with asyncio.timeout(20):
            return await self.overlay.request(PeerId(self.owner.peer_id), payload)

    async def ask(self, message: messages.Request) -> messages.Reply:
        return messages.decode_reply(await self.send(messages.encode_message(message)))

    async def lease(self, want: int = 4) -> messages.LeaseReply:
        reply = await self.ask(messages.LeaseRequest(want, KERNELS))
        assert isinstance(reply, messages.LeaseReply), reply
        for raw in reply.leases:
            fact = self.codec.open(raw)
            assert isinstance(fact.payload, Leases)
            self.job = fact.job
            self.leased += [(item.unit, item.epoch) for item in fact.payload.items]
        return reply

    async def report(
        self, *facts: Fact | bytes, results: tuple[bytes, ...] = (), job: bytes | None = None
    ) -> messages.Reply:
        raw = [fact.raw if isinstance(fact, Fact) else fact for fact in facts]
        return await self.ask(messages.Report(job or self.job, raw, list(results), []))

    def commit(self, result: bytes = b"r" * 8, *, unit: int | None = None, signer: Identity | None = None) -> Fact:
        at, epoch = self.leased[0]
        number = at if unit is None else unit
        key = self.identity.public_key
        seal = commitment(self.codec.network, self.job, number, epoch, key, ResultHash(hash_result(result)), NONCE)
        return self.codec.seal(signer or self.identity, Commits(self.job, [CommitItem(number, epoch, seal)]))

    def reveal(self, result: bytes, nonce: bytes = NONCE) -> Fact:
        unit, epoch = self.leased[0]
        item = RevealItem(unit, epoch, hash_result(result), nonce)
        return self.codec.seal(self.identity, Reveals(self.job, [item]))

    async def offence(self, *words: str, count: int = 1) -> str:
        """The reason that the owner recorded for us."""
        event = await self.owner.event("violation", 10, count, peer=self.peer_id)
        for word in words:
            assert word in event["reason"], event
        return str(event["reason"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def owner(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NodeProcess]:
    """A node that computes nothing itself and has an open job of 400 units."""
    async with Swarm(tmp_path_factory.mktemp("hostile")) as swarm:
        (node,) = await swarm.start(1, "--no-work")
        await node.submit("prime_count", 400, stop=10**9)
        yield node
        assert "Traceback" not in node.log.read_text(), swarm.logs()


@pytest_asyncio.fixture(loop_scope="module")
async def hostile(owner: NodeProcess) -> AsyncIterator[Hostile]:
    """A peer with a fresh key, connected to the owner."""
    peer = Hostile(owner)
    try:
        await peer.join()
        yield peer
    finally:
        await peer.overlay.stop()


GARBAGE = {
    "empty": b"",
    "truncated": messages.encode_message(messages.LeaseRequest(1, KERNELS))[:-4],
    "trailing bytes": messages.encode_message(messages.LeaseRequest(1, KERNELS)) + b"\x00",
    "deeply nested": b"\x91" * 100_000 + b"\x00",
    "wrongly typed": b"\x94\x0a\xa1x\xa1y\xa1z",
    "unknown kind": b"\x92\xcc\xc8\x00",
    "a map": b"\x81\xa1a\x01",
    "huge length announced": b"\xdd\xff\xff\xff\xff",
    "huge": b"\xc6" + (900_000).to_bytes(4, "big") + bytes(900_000),
    "not ours": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_garbage_is_refused_and_recorded(hostile: Hostile, kind: str) -> None:
    with pytest.raises(RemoteProtocolError):
        await hostile.send(GARBAGE[kind])
    reason = await hostile.offence()
    assert len(reason) < 300
    told = await hostile.owner.why(str(hostile.peer_id))
    assert "broke 1 rule" in told
    assert reason[1:20] in told
    assert (await hostile.owner.peers())[hostile.peer_id]["violations"] == 1


async def _never_leased(peer: Hostile) -> messages.Reply:
    return await peer.report(peer.commit(unit=399))


async def _beyond_the_job(peer: Hostile) -> messages.Reply:
    return await peer.report(peer.commit(unit=400))


async def _somebody_elses(peer: Hostile) -> messages.Reply:
    return await peer.report(peer.commit(signer=Identity.generate()))


async def _forged_lease(peer: Hostile) -> messages.Reply:
    unit, epoch = peer.leased[0]
    item = LeaseItem(7, unit + 1, epoch, peer.identity.public_key, 60_000)
    return await peer.report(peer.codec.seal(peer.identity, Leases(peer.job, [item])))


async def _other_network(peer: Hostile) -> messages.Reply:
    peer.codec = FactCodec("elsewhere")
    return await peer.report(peer.commit())


async def _bad_signature(peer: Hostile) -> messages.Reply:
    raw = bytearray(peer.commit().raw)
    raw[-1] ^= 1
    return await peer.report(bytes(raw))


async def _changed_body(peer: Hostile) -> messages.Reply:
    raw = bytearray(peer.commit().raw)
    raw[len(raw) // 2] ^= 1
    return await peer.report(bytes(raw))


async def _wrong_hash(peer: Hostile) -> messages.Reply:
    await peer.report(peer.commit(b"a" * 8))
    return await peer.report(peer.reveal(b"a" * 8), results=(b"b" * 8,))


async def _does_not_open(peer: Hostile) -> messages.Reply:
    await peer.report(peer.commit(b"a" * 8))
    return await peer.report(peer.reveal(b"b" * 8), results=(b"b" * 8,))


async def _missing_results(peer: Hostile) -> messages.Reply:
    await peer.report(peer.commit(b"a" * 8))
    return await peer.report(peer.reveal(b"a" * 8))


async def _giant_parameters(peer: Hostile) -> messages.Reply:
    params: dict[str, str | int | bool | float] = {f"p{number}": "x" * 100 for number in range(400)}
    spec = JobSpec(
        "prime_count", 1, params, 10, "exact", Policy(), Resources(), Deadlines(), bytes(32), NONCE, 0
    )  # fmt: skip
    return await peer.report(peer.codec.seal(peer.identity, spec))


OFFENCES: dict[str, tuple[Callable[[Hostile], Awaitable[messages.Reply]], str]] = {
    "a commit that was never leased": (_never_leased, "never leased"),
    "a unit that the job does not have": (_beyond_the_job, "unit"),
    "somebody else's fact": (_somebody_elses, "somebody else"),
    "a forged lease": (_forged_lease, "proves nothing"),
    "a fact of another network": (_other_network, "elsewhere"),
    "a forged signature": (_bad_signature, "signature"),
    "a changed fact": (_changed_body, ""),
    "a result with another hash": (_wrong_hash, "hash"),
    "a reveal that opens nothing": (_does_not_open, "open"),
    "reveals without results": (_missing_results, "number of results"),
    "a spec with giant parameters": (_giant_parameters, ""),
}


@pytest.mark.parametrize("name", OFFENCES)
async def test_breaking_the_rules_of_work_is_refused_and_recorded(hostile: Hostile, name: str) -> None:
    offend, word = OFFENCES[name]
    await hostile.lease()
    reply = await offend(hostile)
    assert isinstance(reply, messages.Refusal), reply
    assert reply.code == "protocol"
    reason = await hostile.offence(word)
    assert reason in reply.text
    assert hostile.owner.count("violation", peer=str(hostile.peer_id)) == 1


async def test_a_report_of_an_unknown_job_is_no_offence(hostile: Hostile) -> None:
    """Its keeper may have been set up anew: the worker is told, not blamed."""
    await hostile.lease()
    reply = await hostile.report(job=os.urandom(32))
    assert isinstance(reply, messages.Refusal)
    assert reply.code == "unknown_job"
    assert hostile.owner.count("violation", peer=str(hostile.peer_id)) == 0


async def test_a_lease_that_is_shown_again_changes_nothing(hostile: Hostile) -> None:
    """Workers show leases to prove to another keeper what they hold."""
    reply = await hostile.lease()
    assert isinstance(await hostile.report(reply.leases[0]), messages.ReportReply)
    assert hostile.owner.count("violation", peer=str(hostile.peer_id)) == 0


async def test_an_oversized_request_is_refused_by_both_ends(hostile: Hostile) -> None:
    """Two MiB do not even leave: the limit holds on our side; the owner is unimpressed."""
    with pytest.raises(SparkleError):
        await hostile.send(bytes(2 << 20))
    assert (await hostile.owner.status())["state"] == "idle"


async def test_repeated_offences_lead_to_a_ban(hostile: Hostile) -> None:
    """After five it is hung up on, and hung up on again when it comes back; `why` says so."""
    for _ in range(5):
        with contextlib.suppress(SparkleError):
            await hostile.send(b"nonsense")
    await hostile.owner.event("peer_banned", peer=hostile.peer_id)
    async with asyncio.timeout(10):
        await hostile.down.wait()
    await hostile.owner.event("peer_down", peer=hostile.peer_id)
    assert hostile.peer_id not in await hostile.owner.peers()
    told = await hostile.owner.why(str(hostile.peer_id))
    assert "It broke 5 rules; this node does not deal with it for a while." in told
    hostile.down.clear()
    with contextlib.suppress(SparkleError):
        await hostile.overlay.connect(hostile.owner.address)
    async with asyncio.timeout(10):
        await hostile.down.wait()
    # Nor does the ban keep the node's processor busy.
    status = await hostile.owner.status()
    assert status["state"] == "idle"


def resident_bytes(node: NodeProcess) -> int:
    """Memory of the node's process now; what the node says of itself is some seconds old."""
    return psutil.Process(node.process.pid).memory_info().rss


async def test_a_flood_of_requests_hoards_nothing_and_delays_nobody(hostile: Hostile) -> None:
    """Two thousand requests at once: the owner answers meanwhile, its memory is bounded, most units stay free."""
    before = resident_bytes(hostile.owner)

    async def flood() -> None:
        with contextlib.suppress(SparkleError):
            await hostile.lease(64)

    for _ in range(35):
        attack = asyncio.gather(*(flood() for _ in range(60)))  # more the overlay would not let out at once
        async with asyncio.timeout(5):
            await hostile.owner.status()
        await attack
    (job,) = (await hostile.owner.view())["jobs"]
    assert job["units"]["leased"] <= 120, job["units"]
    assert resident_bytes(hostile.owner) < before + 40_000_000


async def test_raw_bytes_at_the_port_hurt_nobody(owner: NodeProcess) -> None:
    """Garbage, silence, half a handshake, a plaintext dialer: the port stays open to those who keep to the rules."""
    port = int(owner.address.split("/")[4])
    multistream, plaintext = b"\x13/multistream/1.0.0\n", b"\x11/plaintext/2.0.0\n"
    openings = [b"", os.urandom(4096), b"GET / HTTP/1.0\r\n\r\n", multistream, multistream + plaintext, b"\xff" * 64]
    sockets = []
    try:
        for opening in openings * 5:
            connection = socket.create_connection(("127.0.0.1", port), 5)
            sockets.append(connection)
            connection.sendall(opening)
        answered = sockets[4]
        answered.settimeout(5)
        said = b""
        with contextlib.suppress(TimeoutError, OSError):
            while b"na\n" not in said and len(said) < 200:
                chunk = answered.recv(100)
                if not chunk:
                    break
                said += chunk
        assert plaintext not in said  # it is not what we agree on
        friend = Hostile(owner)
        try:
            async with asyncio.timeout(15):
                await friend.join()
            assert (await friend.lease(1)).open_jobs == 1
        finally:
            await friend.overlay.stop()
    finally:
        for connection in sockets:
            connection.close()


async def test_honest_workers_finish_the_job_all_the_same(owner: NodeProcess, tmp_path: Path) -> None:
    """After all of that (this test is the last here): the right answer, from honest workers alone."""
    workers = [owner.swarm.node("honest1"), owner.swarm.node("honest2")]
    for worker in workers:
        await worker.spawn("--no-mdns", "--bootstrap", owner.address)
    (row,) = (await owner.view())["jobs"]
    document = await owner.done(row["job"], 90)
    assert document["result"] == 50_847_534
    assert set(document["workers"]) == {worker.peer_id for worker in workers}
