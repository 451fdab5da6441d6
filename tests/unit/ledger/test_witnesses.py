"""Who witnesses an account."""

from random import Random

from sparkle_ledger.entries import AccountId
from sparkle_ledger.witnesses import choose_witnesses
from sparkle_protocol.ids import JobId, peer_id_from_key
from sparkle_protocol.work.placement import Candidate, distance

ACCOUNT = AccountId(b"\5" * 32)


def candidates(count: int) -> list[Candidate]:
    keys = Random(1)
    return [Candidate(peer_id_from_key(keys.randbytes(32)), (f"/ip4/8.8.{n}.1/tcp/1",)) for n in range(count)]


def test_witnesses_are_the_nearest_peers_and_never_the_account_itself() -> None:
    known = candidates(50)
    nearest = sorted((one.peer for one in known), key=lambda peer: distance(JobId(ACCOUNT), peer))
    assert choose_witnesses(ACCOUNT, known, ()) == tuple(nearest[:8])
    assert choose_witnesses(ACCOUNT, known, {nearest[0]}) == tuple(nearest[1:9])


def test_one_network_has_one_witness_while_there_are_others() -> None:
    known = candidates(30)
    nearest = sorted(known, key=lambda one: distance(JobId(ACCOUNT), one.peer))
    owned = {one.peer for one in nearest[:6]}
    moved = [Candidate(one.peer, ("/ip4/9.9.9.9/tcp/1",)) if one.peer in owned else one for one in known]
    assert len(owned & set(choose_witnesses(ACCOUNT, moved, ()))) == 1
