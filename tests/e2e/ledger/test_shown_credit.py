"""What users of real nodes see of the ledger: commands agree with each other, with ``why``, and with the file."""

import csv
import io
from pathlib import Path

import pytest

from tests.e2e.ledger.books import account, settled
from tests.e2e.node.processes import Swarm


@pytest.mark.timeout(300)
async def test_commands_agree_while_a_job_runs_after_it_and_once_a_node_has_stopped(tmp_path: Path) -> None:
    async with Swarm(tmp_path) as swarm:
        nodes = await swarm.start(3)
        submitter, *workers = nodes
        fresh = (await submitter.sparkle("credit", "--json")).document
        assert (fresh["state"], fresh["reason"]["code"], fresh["entries"]) == ("ready", "account_unopened", 0)
        job = await submitter.submit("prime_count", 40, stop=10**9)
        running = (await submitter.sparkle("credit", "--json")).document
        assert running["held_micro"] > 0 > running["balance_micro"]
        assert [one["job"] for one in running["escrows"]] == [job]
        verified = await submitter.sparkle("ledger", "verify", "--json")  # beside a node that writes
        assert (verified.code, verified.document["violations"]) == (0, [])
        await submitter.done(job)
        await settled(job, submitter)

        told = (await submitter.sparkle("why", job, "--json")).document
        (escrow,) = [one["numbers"] for one in told["details"] if one["code"] == "escrow"]
        mine = (await submitter.sparkle("credit", "--json")).document
        assert escrow["paid_micro"] == mine["spent_micro"] == -mine["balance_micro"]
        assert (escrow["left_micro"], escrow["owed_micro"], mine["held_micro"], mine["escrows"]) == (0, 0, 0, [])
        earned = 0
        for worker in workers:
            seen = (await submitter.sparkle("credit", worker.peer_id, "--json")).document
            assert (seen["own"], seen["account"]) == (False, account(worker).hex())
            assert seen["balance_micro"] == seen["earned_micro"]
            peer = (await submitter.sparkle("why", worker.peer_id, "--json")).document
            (known,) = [one["numbers"] for one in peer["details"] if one["code"] == "account"]
            assert known["spent_on_micro"] == seen["earned_micro"] == known["balance_micro"]
            earned += seen["earned_micro"]
        assert earned == mine["spent_micro"]
        assert {one["peer_id"] for one in mine["partners"]} <= {worker.peer_id for worker in workers}
        assert mine["history"][-1]["balance_micro"] == mine["balance_micro"]

        for unit in range(3):
            told = (await submitter.sparkle("why", f"{job}/{unit}", "--json")).document
            pay = [one for one in told["details"] if one["code"].startswith(("paid", "pay_"))]
            assert all(one["code"] == "paid" for one in pay), "all is settled"
            assert {one["numbers"]["peer"] for one in pay} <= {worker.peer_id for worker in workers}

        assert await submitter.terminate() == 0
        audit = (await submitter.sparkle("ledger", "verify", "--json")).document
        assert audit["ok"]
        assert audit["earned_micro"] == audit["final_price_micro"] == earned
        rows = list(csv.DictReader(io.StringIO((await submitter.sparkle("ledger", "export")).out)))
        assert sum(int(row["amount_micro"]) for row in rows) == 0
        assert (await submitter.sparkle("credit")).code == 4, "no node is running"
