"""Results of jobs with arrays outlive the workers that computed them: real processes, a lost disk."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.e2e.node.processes import NodeProcess, Swarm
from tests.e2e.node.test_arrays import SMALL, assert_product, product, save, submit

pytestmark = pytest.mark.timeout(500)  # as those that it shares its arrays with


async def test_results_of_a_worker_that_is_lost_with_its_disk_are_not_computed_again(
    swarm: Swarm, tmp_path: Path
) -> None:
    """The owner leaves, one node computes all, and is lost before the owner is back; nobody else computes.

    One of those that keep the results is killed and started again meanwhile.
    """
    inputs, a, b = save(tmp_path, m=2048, n=2048)
    idle = ["--no-work"]
    owner, worker, *others = await swarm.start(5, *SMALL, arguments_of={0: idle, 2: idle, 3: idle, 4: idle})
    everybody = (worker, *others)
    await asyncio.gather(
        *(
            node.event("peer_up", peer=other.peer_id)
            for node in everybody
            for other in swarm.nodes
            if other is not node
        )
    )
    job = await submit(owner, inputs)
    units = (await owner.job(job))["units"]["total"]
    await owner.kill()
    await others[0].event("unit_final", timeout_s=240, job=job, count=units)

    def kept_twice() -> bool:
        return all(len(keepers_of(others, job, unit)) >= 2 for unit in range(units))

    await swarm.until(kept_twice, "two more nodes have each result", 120)
    (keeper, *_) = keepers_of(others, job, 0)
    await keeper.kill()
    await keeper.spawn("--no-mdns", *SMALL, *idle, "--bootstrap", others[others.index(keeper) - 1].address)
    await keeper.wait_ready()
    gone = worker.peer_id
    await worker.kill()
    shutil.rmtree(worker.home)
    await owner.spawn("--no-mdns", *SMALL, *idle)
    await owner.wait_ready()
    document = await owner.done(job, 200)
    assert document["workers"] == {gone: units}
    assert document["replicas"] == units  # each was computed once
    assert_product(await product(owner, job), a, b)
    # They are let go: the owner has what it wants.
    await asyncio.gather(*(node.event("job_released", job=job) for node in others))


def keepers_of(nodes: list[NodeProcess], job: str, unit: int) -> list[NodeProcess]:
    return [node for node in nodes if node.count("result_held", job=job, unit=unit)]
