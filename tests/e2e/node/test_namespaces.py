"""Two nodes on two machines, as far as one machine can play that: each in a network namespace of its own."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.node.processes import PROGRAMS, Ran, Swarm, run

PRIMES_TO_1E9 = 50_847_534
SETUP_S = 10.0
# The commands of a shell that is root in a user namespace of its own, with a network of its own. It makes a second
# network in a child, a wire between the two, and says the child's process id; both last as long as its stdin.
TWO_NETWORKS = """
set -e
ip link set lo up
unshare --net sleep infinity </dev/null & far=$!
trap 'kill $far' EXIT
until [ "$(readlink /proc/$far/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.02; done
ip link add name near type veth peer name far netns $far
ip address add 10.77.0.1/24 dev near
ip link set near up
nsenter --target $far --net sh -ec 'ip link set lo up; ip address add 10.77.0.2/24 dev far; ip link set far up'
echo $$ $far
cat >/dev/null
"""


@dataclass(frozen=True, slots=True)
class Wire:
    """Two networks that reach each other at these addresses; ``near`` and ``far`` are processes in them."""

    near: int
    far: int
    near_host: str = "10.77.0.1"
    far_host: str = "10.77.0.2"

    def inside(self, process: int, program: str) -> list[str]:
        """The command that runs one of our programs in the network of a process."""
        enter = [
            shutil.which("nsenter") or "nsenter",
            "--preserve-credentials",
            f"--target={process}",
            "--user",
            "--net",
        ]
        return [*enter, str(PROGRAMS / program)]


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    """Two network namespaces with a wire between; skips where the system gives us none."""
    complaints = tmp_path / "complaints"
    with complaints.open("wb") as errors:
        try:
            shell = subprocess.Popen(
                ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", TWO_NETWORKS],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        except FileNotFoundError:
            pytest.skip("there is no unshare(1) here, so no network namespaces")
    assert shell.stdin is not None
    assert shell.stdout is not None
    try:
        said = shell.stdout.readline().split()
        if len(said) != 2:
            shell.wait(SETUP_S)
            pytest.skip(f"this system gives us no network namespaces: {complaints.read_text().strip()[:200]}")
        yield Wire(int(said[0]), int(said[1]))
    finally:
        shell.stdin.close()
        shell.wait(SETUP_S)
        shell.stdout.close()


async def test_two_nodes_in_two_networks_share_a_job(wire: Wire, swarm: Swarm) -> None:
    """Neither reaches the other but over the wire; each knows the other by its address there."""
    owner, worker = swarm.node("owner"), swarm.node("worker")
    near, far = f"/ip4/{wire.near_host}/tcp/4001", f"/ip4/{wire.far_host}/tcp/4001"
    await owner.spawn("--no-mdns", "--no-work", program=wire.inside(wire.near, "sparkle-node"), listen=near)
    await owner.wait_ready()
    assert owner.address.startswith(near)
    joining = ("--no-mdns", "--bootstrap", owner.address)
    await worker.spawn(*joining, program=wire.inside(wire.far, "sparkle-node"), listen=far)
    await worker.wait_ready()
    await owner.event("peer_up", peer=worker.peer_id)

    async def sparkle(*arguments: str) -> Ran:
        return await run(*wire.inside(wire.near, "sparkle"), *arguments, "--home", str(owner.home))

    (peer,) = (await sparkle("peers", "--json")).document
    assert peer["peer_id"] == worker.peer_id
    assert all(address.startswith(f"/ip4/{wire.far_host}/") for address in peer["addresses"]), peer
    submitted = await sparkle(
        "submit", "prime_count", "-p", "stop=1e9", "--units", "20", "--verify", "fast", "--wait", "--json"
    )
    assert submitted.code == 0, (submitted.err, swarm.logs())
    (job,) = (await sparkle("jobs", "--json")).document
    assert job["result"] == PRIMES_TO_1E9
    assert job["workers"] == {worker.peer_id: 20}
