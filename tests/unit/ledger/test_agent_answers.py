"""What a node shows of the ledger, and what it takes from strangers."""

from sparkle_ledger.entries import AccountId
from sparkle_ledger.proofs import prefixes
from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.ledger_messages import (
    EntriesReply,
    EntriesRequest,
    Head,
    HeadsReply,
    HeadsRequest,
    LedgerPush,
    ProofReply,
    ProofRequest,
)
from tests.unit.ledger.agents import Member, World
from tests.unit.ledger.ledgers import KEEPERS, Author, Job, idle, person, proven


def ask(world: World, member: Member, message: messages.Request, peer: str | None = None) -> messages.Reply:
    """What a member answers a stranger."""
    found: list[messages.Reply] = []
    world.answer = lambda token, reply: found.append(reply) if token == -1 else None  # type: ignore[method-assign]
    who = person(50).peer_id if peer is None else peer
    member.hear(fx.Requested(-1, who, message))  # type: ignore[arg-type]
    world.run(1)
    (reply,) = found
    return reply


def test_nothing_is_known_before_it_is_durable() -> None:
    world = World()
    (node,) = world.add(person(1))
    author = Author(person(2))
    node.disk_fails = True
    node.hear(fx.Requested(5, author.who.peer_id, LedgerPush([author.entries[0].raw])))
    assert ask(world, node, HeadsRequest([author.account])) == HeadsReply([None])
    assert ask(world, node, EntriesRequest(author.account, 0, 0)) == EntriesReply([])
    node.disk_fails = False
    world.run(20)
    head = Head(0, 0, author.entries[0].id)
    assert ask(world, node, HeadsRequest([author.account])) == HeadsReply([head])


def test_strangers_entries_come_from_their_author_only() -> None:
    world = World()
    (node,) = world.add(person(1))
    author = Author(person(2))
    reply = ask(world, node, LedgerPush([author.entries[0].raw]))
    assert isinstance(reply, messages.Refusal)
    assert reply.code == "stranger"
    assert node.disk == {}


def test_entries_that_hang_in_the_air_are_not_kept() -> None:
    world = World()
    (node,) = world.add(person(1))
    author = Author(person(2))
    later = [author.state(idle(n)) for n in range(4)][1:]
    push = LedgerPush([entry.raw for entry in later])
    assert ask(world, node, push, author.who.peer_id) == HeadsReply([None])
    assert node.disk == {}


def test_long_feeds_are_shown_in_pages() -> None:
    world = World()
    (node,) = world.add(person(1))
    author = Author(person(2))
    for n in range(700):
        author.state(idle(n))
    node.disk = dict.fromkeys(entry.raw for entry in author.entries)
    node.start()
    first = ask(world, node, EntriesRequest(author.account, 0, 0))
    assert isinstance(first, EntriesReply)
    assert first.more
    rest = ask(world, node, EntriesRequest(author.account, 0, len(first.entries)))
    assert isinstance(rest, EntriesReply)
    assert not rest.more
    assert first.entries + rest.entries == [entry.raw for entry in author.entries]


def test_a_proof_is_shown_as_far_as_it_fits_and_unknown_jobs_are_refused() -> None:
    world = World()
    (node,) = world.add(person(1))
    job = Job(person(9), 3000)
    keeper = job.accepted([person(5)], range(100)) + job.accepted([person(5)], range(1024, 1100))
    node.kept[job.id] = job.record(keeper)
    reply = ask(world, node, ProofRequest(job.id, [1, 0, 1], b""))
    assert isinstance(reply, ProofReply)
    assert reply.ranges == [1, 0]
    refused = ask(world, node, ProofRequest(b"?" * 32, [0], b""))
    assert isinstance(refused, messages.Refusal)
    assert refused.code == "unknown_job"


def test_of_a_proof_only_what_is_not_known_is_shown_and_together_they_prove_the_same() -> None:
    world = World()
    (node,) = world.add(person(1))
    job = Job(person(9), 100, keepers=KEEPERS)
    early, late = job.accepted([person(5)], range(50)), job.accepted([person(6)], range(50, 100))
    known, whole = job.record(early), job.record([*early, *late])
    node.kept[job.id] = whole
    full = ask(world, node, ProofRequest(job.id, [0], b""))
    rest = ask(world, node, ProofRequest(job.id, [0], prefixes(known, [0])))
    nothing = ask(world, node, ProofRequest(job.id, [0], prefixes(whole, [0])))
    assert isinstance(full, ProofReply)
    assert isinstance(rest, ProofReply)
    assert isinstance(nothing, ProofReply)
    assert 2 * len(rest.proof) < 1.5 * len(full.proof)
    assert len(nothing.proof) < len(job.spec.raw) + 50
    record = proven(rest.proof, known=known.counting())
    assert [record.payable(unit) for unit in range(100)] == [whole.payable(unit) for unit in range(100)]


def test_to_ask_about_accounts_that_nobody_has_costs_no_room() -> None:
    world = World()
    (node,) = world.add(person(1))
    unknown = [n.to_bytes(32, "big") for n in range(256)]
    assert ask(world, node, HeadsRequest(unknown)) == HeadsReply([None] * 256)
    assert node.agent.book.money.seen(AccountId(unknown[0])) is not node.agent.book.money.seen(AccountId(unknown[0]))
