"""Real nodes price their jobs, earn, and settle: what was accepted is paid once, and all books say the same."""

import asyncio
from pathlib import Path

import pytest

from sparkle_ledger.book import Book
from tests.e2e.ledger.books import account, balances, book_of, settled
from tests.e2e.node.processes import NodeProcess, Swarm
from tests.e2e.node.test_keepers import started_again

UNITS = 40


async def agreed(nodes: list[NodeProcess]) -> dict[str, tuple[int, int, int, int]]:
    """What all of them say of all accounts, once they say the same."""
    swarm = nodes[0].swarm

    async def look() -> dict[str, tuple[int, int, int, int]] | None:
        said = [await asyncio.to_thread(lambda n=node: balances(book_of(n), nodes)) for node in nodes]
        return said[0] if all(one == said[0] for one in said) else None

    return await swarm.until(look, "all books agree", 60)  # type: ignore[no-any-return]


@pytest.mark.timeout(300)
async def test_a_job_is_paid_for(tmp_path: Path) -> None:
    async with Swarm(tmp_path) as swarm:
        nodes = await swarm.start(4)
        submitter, *workers = nodes
        job = await submitter.submit("prime_count", UNITS, stop=10**8)
        held = (await submitter.view())["credit_micro"]
        assert held < 0  # what it may cost is set aside before anybody hears of it
        await submitter.done(job)
        book = await settled(job, submitter)
        record = book.record(bytes.fromhex(job))
        assert record is not None
        assert held == -record.cover_micro
        assert record.cancelled  # so that to show that it is over takes no verdicts
        assert book.sum_micro() == 0
        price = record.price_micro
        for node in nodes:
            earned = book.account(account(node)).earned_micro
            paid = sum(1 for one in record.all_payable() if one.worker == book.account(account(node)).key)
            assert earned == paid * price, node.name
        spent = book.account(account(submitter))
        assert spent.spent_micro == -spent.balance_micro == record.owed_micro
        said = await agreed(nodes)
        assert sum(balance + escrow for balance, escrow, _, _ in said.values()) == 0
        for worker in workers:
            assert (await worker.view())["credit_micro"] == said[worker.name][0]


@pytest.mark.timeout(400)
async def test_who_is_killed_goes_on_where_it_stood(tmp_path: Path) -> None:
    """The submitter in mid-job, a worker right after its results were accepted: all is paid, and paid once."""
    async with Swarm(tmp_path) as swarm:
        nodes = await swarm.start(4)
        submitter, worker = nodes[0], nodes[1]
        job = await submitter.submit("prime_count", UNITS, stop=10**9)
        await submitter.job_when(job, lambda document: document["units"]["final"] >= 8, "some units are final")
        await submitter.kill()
        accepted = worker.count("result_accepted")
        await worker.event("result_accepted", count=accepted + 1)
        await worker.kill()
        before = balances(await asyncio.to_thread(book_of, submitter), [submitter])
        await started_again(submitter)
        await started_again(worker)
        await submitter.done(job)
        book = await settled(job, submitter, 150)
        assert before[submitter.name][0] < book.account(account(submitter)).balance_micro  # the rest came back
        assert book.sum_micro() == 0
        said = await agreed(nodes)
        assert sum(balance + escrow for balance, escrow, _, _ in said.values()) == 0
        record = book.record(bytes.fromhex(job))
        assert record is not None
        assert -said[submitter.name][0] == record.owed_micro == sum(earned for _, _, earned, _ in said.values())
        assert said[worker.name][2] > 0
        again = await submitter.submit("prime_count", 4, stop=10**6)  # its account is ready again
        await submitter.done(again)
        await settled(again, submitter)


@pytest.mark.timeout(300)
async def test_workers_are_paid_while_the_submitter_is_away(tmp_path: Path) -> None:
    async with Swarm(tmp_path) as swarm:
        nodes = await swarm.start(5)
        submitter, *others = nodes
        job = await submitter.submit("prime_count", UNITS, stop=10**8)
        await submitter.event("job_published", job=job)
        await submitter.kill()
        book = await settled_elsewhere(job, others[0])
        record = book.record(bytes.fromhex(job))
        assert record is not None
        assert sum(book.account(account(node)).earned_micro for node in nodes) == record.owed_micro
        assert book.sum_micro() == 0


async def settled_elsewhere(job: str, node: NodeProcess) -> Book:
    """The book of a node in which all that was accepted of a job is paid."""

    def read() -> Book | None:
        book = book_of(node)
        record = book.record(bytes.fromhex(job))
        return book if record is not None and record.complete and not book.unsettled(record.job) else None

    async def look() -> Book | None:
        return await asyncio.to_thread(read)

    return await node.swarm.until(look, f"job {job[:8]} is paid for", 150)  # type: ignore[no-any-return]
