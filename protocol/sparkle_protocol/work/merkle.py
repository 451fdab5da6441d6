"""A binary Merkle tree over BLAKE3, shaped as in RFC 6962, section 2.1.

::

    hash of a leaf = BLAKE3(00 ‖ leaf)        hash of a node = BLAKE3(01 ‖ left ‖ right)

Leaves and nodes differ in their first byte, so that no node passes for a leaf. Level by level, neighbours become one
node; a last one without a neighbour moves up as it is and is never paired with itself, so that two different lists
of leaves have two different roots. A proof is the hashes beside the path from a leaf to the root, the lowest first.
"""

from collections.abc import Iterable, Sequence

from sparkle_protocol.errors import LocalProtocolError
from sparkle_protocol.ids import HASH_BYTES, digest

_LEAF = b"\x00"
_NODE = b"\x01"


def root(leaves: Iterable[bytes]) -> bytes:
    """The 32 bytes that stand for these leaves in this order; there must be at least one.

    Raises:
        LocalProtocolError: there is no leaf.
    """
    level = _hashed(leaves)
    while len(level) > 1:
        level = _above(level)
    return level[0]


def proof(leaves: Iterable[bytes], index: int) -> tuple[bytes, ...]:
    """What ``verify`` needs to see that the leaf at ``index`` is among those of the root.

    Raises:
        LocalProtocolError: there is no such leaf.
    """
    level = _hashed(leaves)
    if not 0 <= index < len(level):
        raise LocalProtocolError(f"there is no leaf {index} among {len(level)}")
    beside: list[bytes] = []
    while len(level) > 1:
        if index ^ 1 < len(level):
            beside.append(level[index ^ 1])
        level, index = _above(level), index >> 1
    return tuple(beside)


def verify(root: bytes, leaf: bytes, index: int, count: int, proof: Sequence[bytes]) -> bool:
    """``leaf`` is the one at ``index`` of the ``count`` leaves that ``root`` stands for.

    ``count`` has to be known from elsewhere: the root does not tell it. All other arguments may be an enemy's.
    """
    if not 0 <= index < count or any(len(part) != HASH_BYTES for part in proof):
        return False
    found, used = digest(_LEAF, leaf), 0
    while count > 1:
        if index ^ 1 < count:
            if used == len(proof):
                return False
            pair = (proof[used], found) if index & 1 else (found, proof[used])
            found, used = digest(_NODE, *pair), used + 1
        index, count = index >> 1, count + 1 >> 1
    return used == len(proof) and found == root


def _hashed(leaves: Iterable[bytes]) -> list[bytes]:
    level = [digest(_LEAF + leaf) for leaf in leaves]
    if not level:
        raise LocalProtocolError("a Merkle tree has at least one leaf")
    return level


def _above(level: list[bytes]) -> list[bytes]:
    nodes = [digest(_NODE + level[left] + level[left + 1]) for left in range(0, len(level) - 1, 2)]
    return nodes + level[len(level) & ~1 :]
