"""Blobs between real processes over real libp2p and TLS, with everything that happens to processes and links."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.e2e.bulk.conftest import BlobProcess
from tests.e2e.chaos.relay import Link, Shape, until

MB = 1 << 20
Make = Callable[[], Awaitable[BlobProcess]]


async def holder_of(make: Make, size: int, seed: int = 1) -> tuple[BlobProcess, str]:
    holder = await make()
    return holder, (await holder.ask(put=size, seed=seed))["blob"]


async def test_a_large_blob_arrives_and_memory_stays_flat(nodes: Make) -> None:
    holder, blob = await holder_of(nodes, 256 * MB)
    asker = await nodes()
    await asker.knows(holder)
    await asker.begin(blob, holder)
    report = await asker.fetched()
    assert report["received"][holder.peer] < 257 * MB
    assert report["grown_kb"] < 32 << 10
    assert (await asker.ask(check=blob, size=256 * MB, seed=1))["same"]
    assert (await holder.ask(usage=1))["anonymous_kb"] < 200 << 10


async def test_a_receiver_that_is_killed_goes_on_where_it_was(nodes: Make) -> None:
    holder, blob = await holder_of(nodes, 160 * MB)
    asker = await nodes()
    await asker.knows(holder)
    await asker.begin(blob, holder)
    await asker.until(lambda told: told.get("stored", 0) >= 40 * MB)
    await asker.kill()
    await asker.start()
    await asker.knows(holder)
    await asker.begin(blob, holder)
    report = await asker.fetched()
    assert report["resumed"] >= 40 * MB
    assert report["received"][holder.peer] <= 160 * MB - report["resumed"] + MB
    assert (await asker.ask(check=blob, size=160 * MB, seed=1))["same"]


async def test_a_source_is_killed_and_another_goes_on(nodes: Make) -> None:
    (one, blob), (two, _) = await holder_of(nodes, 192 * MB), await holder_of(nodes, 192 * MB)
    asker = await nodes()
    await asker.knows(one, two)
    await asker.begin(blob, one, two)
    await asker.until(lambda told: told.get("stored", 0) >= 32 * MB and len(told["sources"]) == 2)
    await one.kill()
    report = await asker.fetched()
    assert report["received"][one.peer] > 0
    assert report["received"][two.peer] > 0
    assert sum(report["received"].values()) < (192 + 96) * MB
    assert (await asker.ask(check=blob, size=192 * MB, seed=1))["same"]


async def test_a_link_is_cut_twice_and_the_source_restarted_without_starting_over(nodes: Make) -> None:
    """First a cut that heals by itself, then one that breaks every connection, then the source is killed."""
    holder, blob = await holder_of(nodes, 128 * MB)
    asker = await nodes()
    now_s = asyncio.get_running_loop().time
    async with Link("bulk") as link:
        link.shape = Shape(bytes_per_s=24e6)

        async def lay() -> None:
            _, port = await link.listen("127.0.0.1", holder.port)
            libp2p_host, libp2p_port = "127.0.0.1", int(holder.address.split("/")[4])
            _, through = await link.listen(libp2p_host, libp2p_port)
            address = holder.address.replace(f"/tcp/{libp2p_port}/", f"/tcp/{through}/")
            await asker.ask(sources={holder.peer: {"address": address, "port": port}})

        await lay()
        await asker.begin(blob, holder)
        await asker.until(lambda told: told.get("stored", 0) >= 20 * MB)
        link.cut()
        await until(now_s() + 2)
        link.heal()
        await asker.until(lambda told: told.get("stored", 0) >= 50 * MB)
        link.cut()
        await link.reset()
        await until(now_s() + 2)
        link.heal()
        await asker.until(lambda told: told.get("stored", 0) >= 80 * MB)
        await holder.kill()
        await holder.start()
        since = len(asker.told)
        await lay()
        report = await asker.fetched()
        assert since
    assert sum(report["received"].values()) < 128 * MB + 40 * MB
    assert (await asker.ask(check=blob, size=128 * MB, seed=1))["same"]


async def test_over_libp2p_where_https_has_no_way(nodes: Make) -> None:
    holder, blob = await holder_of(nodes, 24 * MB)
    asker = await nodes()
    await asker.knows(holder, port=0)
    await asker.begin(blob, holder)
    report = await asker.fetched()
    assert report["received"][holder.peer] < 25 * MB
    assert (await asker.ask(check=blob, size=24 * MB, seed=1))["same"]


async def test_a_disk_that_fills_in_mid_transfer(nodes: Make) -> None:
    """One sentence; the process lives; with space again it goes on where it was."""
    holder, blob = await holder_of(nodes, 128 * MB)
    asker = await nodes()
    await asker.knows(holder)
    await asker.begin(blob, holder)
    await asker.until(lambda told: told.get("stored", 0) >= 16 * MB)
    await asker.order(limit=0)
    failed = await asker.until(lambda told: "failed" in told or "fetched" in told)
    assert failed.get("kind") == "StorageError", failed
    assert "the transfer goes on from there" in failed["failed"]
    await asker.ask(limit=1 << 40)
    asker.told.clear()
    await asker.begin(blob, holder)
    report = await asker.fetched()
    assert report["resumed"] >= 16 * MB
    assert (await asker.ask(check=blob, size=128 * MB, seed=1))["same"]
