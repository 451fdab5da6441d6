"""A node seen from another process: the same picture, the same commands, and a clear word when it has gone."""

import asyncio
from typing import Any

import pytest

from sparkle_p2p.api.remote import RemoteControl
from sparkle_p2p.view import NodeControl, SubmitRequest
from sparkle_protocol.errors import NodeNotRunning, NotFound


async def opened(node: Any) -> RemoteControl:
    remote = RemoteControl(node.client, poll_s=0.01)
    return await asyncio.to_thread(remote.__enter__)


async def closed(remote: RemoteControl) -> None:
    await asyncio.to_thread(remote.__exit__, None, None, None)


def shown(remote: RemoteControl) -> str:
    """The node's state as the view has it, or ``gone``."""
    try:
        return remote.view().state
    except NodeNotRunning:
        return "gone"


async def until_shown(remote: RemoteControl, state: str) -> None:
    """Return once the polled view says so."""
    async with asyncio.timeout(10):
        while shown(remote) != state:
            await asyncio.to_thread(remote._stopped.wait, 0.01)


async def test_it_shows_what_the_node_shows_and_commands_it(node: Any) -> None:
    remote = await opened(node)
    control: NodeControl = remote  # the types agree
    assert control.view() == node.control.view()
    await remote.pause()
    await until_shown(remote, "paused")
    await remote.resume()
    await until_shown(remote, "working")
    job = await remote.submit(SubmitRequest("mandelbrot", {"width": 16}, units=1))
    assert await remote.job(job) == await node.control.job(job)
    assert await remote.jobs() == await node.control.jobs()
    assert await remote.result(job) == await node.control.result(job)
    assert await remote.why() == await node.control.why()
    assert await remote.kernels() == await node.control.kernels()
    assert await remote.credit() == await node.control.credit()
    assert (await remote.credit("ab" * 32)).own is False
    with pytest.raises(NotFound, match="no entry of an account"):
        await remote.credit("ff")
    assert (await remote.cancel(job)).state == "done"
    perished = await remote.submit(SubmitRequest("endless", {"dead": 3}))
    assert await remote.dead(perished) == await node.control.dead() != ()
    assert (await remote.requeue(perished, 1)).units == (1,)
    assert [unit.unit for unit in await remote.dead()] == [0, 2]
    with pytest.raises(NotFound):
        await remote.job("ffff")
    await closed(remote)


async def test_events_arrive_until_the_node_goes(node: Any) -> None:
    remote = await opened(node)
    events = remote.events()
    upcoming = asyncio.ensure_future(anext(events))
    await asyncio.wait_for(node.control.listening.wait(), 10)
    node.control.emit("peer_up", peer="someone")
    event = await asyncio.wait_for(upcoming, 10)
    assert (event.event, event.fields) == ("peer_up", {"peer": "someone"})
    await node.server.stop()
    with pytest.raises(NodeNotRunning):
        await asyncio.wait_for(anext(events), 10)
    await closed(remote)


async def test_a_node_that_goes_is_named_and_one_that_comes_back_is_shown(node: Any, fake: Any) -> None:
    remote = await opened(node)
    node.home.retract()
    await until_shown(remote, "gone")
    node.home.announce(node.url)
    await until_shown(remote, "working")
    assert remote.view().peer_id == fake.ME
    await closed(remote)


async def test_without_a_node_it_does_not_open(node: Any) -> None:
    await node.server.stop()
    with pytest.raises(NodeNotRunning):
        await opened(node)
