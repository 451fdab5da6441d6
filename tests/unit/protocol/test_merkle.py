"""A Merkle root stands for its leaves alone."""

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


@given(lists)
def test_roots_are_those_of_the_rfc(leaves: list[bytes]) -> None:
    assert merkle.root(leaves) == as_in_the_rfc(leaves)


@given(lists, lists)
def test_different_leaves_have_different_roots(a: list[bytes], b: list[bytes]) -> None:
    assert (merkle.root(a) == merkle.root(b)) == (a == b)


def test_a_last_leaf_is_not_a_pair_of_itself() -> None:
    assert merkle.root([b"a", b"b", b"c"]) != merkle.root([b"a", b"b", b"c", b"c"])


def test_a_node_does_not_pass_for_a_leaf() -> None:
    inner = blake3(b"\x00a").digest() + blake3(b"\x00b").digest()
    assert merkle.root([inner]) != merkle.root([b"a", b"b"])


def test_there_is_no_root_of_nothing() -> None:
    with pytest.raises(LocalProtocolError):
        merkle.root([])
