"""A Merkle root stands for its leaves alone, and a proof for one leaf at one place."""

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from sparkle_protocol.errors import LocalProtocolError
from sparkle_protocol.work import merkle

lists = st.lists(st.binary(max_size=70), min_size=1, max_size=40)


def as_in_the_rfc(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word by word, with BLAKE3 for SHA-256."""
    if len(leaves) == 1:
        return blake3(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return blake3(b"\x01" + as_in_the_rfc(leaves[:split]) + as_in_the_rfc(leaves[split:])).digest()


def path_as_in_the_rfc(leaves: list[bytes], index: int) -> list[bytes]:
    """RFC 6962, section 2.1.1."""
    if len(leaves) == 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return [*path_as_in_the_rfc(leaves[:split], index), as_in_the_rfc(leaves[split:])]
    return [*path_as_in_the_rfc(leaves[split:], index - split), as_in_the_rfc(leaves[:split])]


@given(lists)
def test_roots_and_proofs_are_those_of_the_rfc(leaves: list[bytes]) -> None:
    root = merkle.root(leaves)
    assert root == as_in_the_rfc(leaves)
    for index, leaf in enumerate(leaves):
        proof = merkle.proof(leaves, index)
        assert list(proof) == path_as_in_the_rfc(leaves, index)
        assert merkle.verify(root, leaf, index, len(leaves), proof)


@given(lists, st.data())
def test_nothing_else_is_proven(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    root, proof = merkle.root(leaves), merkle.proof(leaves, index)
    other = data.draw(st.binary(max_size=70))
    assert merkle.verify(root, other, index, len(leaves), proof) == (other == leaves[index])
    elsewhere = data.draw(st.integers(-2, len(leaves) + 2))
    if elsewhere != index:
        assert not merkle.verify(root, leaves[index] + b"!", elsewhere, len(leaves), proof)
        assert not merkle.verify(root, leaves[index], elsewhere, len(leaves), proof) or (
            0 <= elsewhere < len(leaves) and leaves[elsewhere] == leaves[index]
        )
    forged = data.draw(st.lists(st.binary(min_size=32, max_size=32), max_size=8))
    assert merkle.verify(root, leaves[index], index, len(leaves), forged) == (tuple(forged) == proof)
    assert not merkle.verify(root, leaves[index], index, len(leaves), (*proof, b"\0" * 32))
    assert not merkle.verify(root, leaves[index], index, len(leaves), (*proof, b""))
    assert not merkle.verify(root[:-1], leaves[index], index, len(leaves), proof)


@given(lists, lists)
def test_different_leaves_have_different_roots(a: list[bytes], b: list[bytes]) -> None:
    assert (merkle.root(a) == merkle.root(b)) == (a == b)


def test_a_last_leaf_is_not_a_pair_of_itself() -> None:
    assert merkle.root([b"a", b"b", b"c"]) != merkle.root([b"a", b"b", b"c", b"c"])


def test_a_node_does_not_pass_for_a_leaf() -> None:
    inner = blake3(b"\x00a").digest() + blake3(b"\x00b").digest()
    assert merkle.root([inner]) != merkle.root([b"a", b"b"])
    assert not merkle.verify(merkle.root([b"a", b"b"]), inner, 0, 1, ())


@pytest.mark.parametrize("index", [-1, 2])
def test_there_is_no_proof_of_nothing(index: int) -> None:
    with pytest.raises(LocalProtocolError):
        merkle.proof([b"a", b"b"], index)
    with pytest.raises(LocalProtocolError):
        merkle.root([])
