"""What a node knows of workers' memory: what it cuts units to, and which jobs it refuses."""

import pytest

from sparkle_p2p.node.array_inputs import choose_units
from sparkle_p2p.node.memory import MIB, UnitMemory, WorkerMemory
from sparkle_p2p.node.results import make_spec
from sparkle_p2p.view import SubmitRequest
from sparkle_protocol import messages
from sparkle_protocol.errors import ConfigError
from sparkle_protocol.facts import JobSpec
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId
from sparkle_worker.kernels.arrays import ArrayType
from sparkle_worker.kernels.registry import get_array_kernel


def known(own_mb: int, *said_mb: int | None, works: bool = True) -> WorkerMemory:
    """Connected peers that said so much each, or nothing."""
    peers = {PeerId(str(number)): size for number, size in enumerate(said_mb)}
    said = {peer: size * MIB for peer, size in peers.items() if size is not None}
    return WorkerMemory(own_mb * MIB, works, lambda: peers.keys(), lambda: said)


def units_of(memory: WorkerMemory) -> tuple[int, int]:
    found = memory.of_units()
    return found.good // MIB, found.most // MIB


@pytest.mark.parametrize(
    ("memory", "good", "most"),
    [
        (known(4096), 4096, 4096),
        (known(4096, None, works=False), 4096, 4096),  # it may have any
        (known(4096, 64, 512, works=False), 64, 512),
        (known(4096, 64, 512), 512, 4096),
        (known(4096, 64, 0, works=False), 64, 64),  # one of them computes nothing
        (known(256, 4096, 4096), 256, 256),  # this node must be able to check
    ],
)
def test_units_are_cut_to_what_half_of_the_workers_allow(memory: WorkerMemory, good: int, most: int) -> None:
    assert units_of(memory) == (good, most)


def collatz() -> JobSpec:
    """A job whose units need 32 MB."""
    return make_spec(SubmitRequest("collatz", {"stop": 10**6}, 4), Identity.generate())


def test_what_no_worker_allows_is_refused() -> None:
    spec = collatz()
    assert spec.resources.memory_bytes == 32 * MIB
    for memory in (known(16, 31), known(4096, 31, 16, works=False)):
        with pytest.raises(
            ConfigError, match=r"needs 32 MB, but no worker that is known here allows more than (16|31)"
        ):
            memory.check(spec)


def test_what_somebody_allows_or_may_allow_is_taken() -> None:
    spec = collatz()
    for memory in (known(16, 32), known(32, 16), known(16, None), known(16, works=False), known(16, 0, works=False)):
        memory.check(spec)


def test_large_units_are_made_only_where_small_ones_cannot_be() -> None:
    kernel = get_array_kernel("nbody")
    state = ArrayType("float64", (8, 4096, 7))
    params = kernel.with_arrays({}, {"state": state})
    one = kernel.cost(kernel.unit(params, 8, 0)).memory_bytes
    assert choose_units(kernel, params, None, UnitMemory(one, 10 * one)) == 8
    assert choose_units(kernel, params, None, UnitMemory(one - 1, one)) == 8
    with pytest.raises(ConfigError, match="but no worker allows more than"):
        choose_units(kernel, params, None, UnitMemory(one - 1, one - 1))


def test_a_spec_states_the_need_of_its_largest_unit() -> None:
    spec = make_spec(SubmitRequest("mandelbrot", {"width": 1000, "height": 7}, 4), Identity.generate())
    assert spec.resources.memory_bytes == 2**22 + 8 * 1000 + 2 * 2000  # two rows, though unit 0 has one


def test_nothing_said_is_no_limit() -> None:
    assert messages.LeaseRequest(1, []).memory_bytes == messages.UNSAID
    assert messages.PeersReply([], 0).memory_bytes == messages.UNSAID
