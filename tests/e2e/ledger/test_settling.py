"""Real nodes price their jobs, earn, and settle: what was accepted is paid once, and all books say the same."""

import asyncio
from pathlib import Path

import pytest

from tests.e2e.ledger.books import account, balances, book_of, settled
from tests.e2e.node.processes import NodeProcess, Swarm

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
