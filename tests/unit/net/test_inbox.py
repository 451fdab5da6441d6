"""Reports from the thread in bounded memory."""

import asyncio

from sparkle_p2p.net.libp2p.inbox import MAX_GOSSIP_WAITING, Inbox


def make(**handlers):
    nothing = dict.fromkeys(("up", "down", "latency", "violation", "gossip", "request"), lambda *_: None)
    return Inbox(**{**nothing, **handlers})


async def test_a_flood_keeps_the_newest_and_counts_the_rest():
    got, done = [], asyncio.Event()

    def take(_topic, _author, payload):
        got.append(payload)
        if payload == total - 1:
            done.set()

    total = 3 * MAX_GOSSIP_WAITING
    inbox = make(gossip=take)
    for number in range(total):
        inbox.gossip("topic", "author", number)
    async with asyncio.timeout(5):
        await done.wait()
    assert got == list(range(total - MAX_GOSSIP_WAITING, total))
    assert inbox.dropped == total - MAX_GOSSIP_WAITING


async def test_a_flood_leaves_the_loop_live():
    turns, got, done = 0, [], asyncio.Event()

    def take(*entry):
        got.append(entry)
        if len(got) == 1000:
            done.set()

    inbox = make(gossip=take)
    for number in range(1000):
        inbox.gossip("topic", "author", number)
    while not done.is_set():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 20


async def test_nothing_is_lost_between_two_threads():
    got, total = [], 20_000
    done = asyncio.Event()

    def take(_peer, reason):
        got.append(reason)
        if reason == total - 1:
            done.set()

    inbox = make(violation=take)

    def report():
        for number in range(total):
            inbox.violation(None, number)

    async with asyncio.timeout(20):
        await asyncio.to_thread(report)
        await done.wait()
    assert len(got) + inbox.dropped == total
    assert got == sorted(got)


async def test_a_closed_inbox_is_silent():
    got = []
    inbox = make(up=lambda *entry: got.append(entry), gossip=lambda *entry: got.append(entry))
    inbox.close()
    inbox.up("peer", (), "in", "", None)
    inbox.gossip("topic", "author", b"")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert got == []
