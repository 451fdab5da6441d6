"""A binary Merkle tree over BLAKE3, shaped as in RFC 6962, section 2.1.

::

    hash of a leaf = BLAKE3(00 ‖ leaf)        hash of a node = BLAKE3(01 ‖ left ‖ right)

Leaves and nodes differ in their first byte, so that no node passes for a leaf. Level by level, neighbours become one
node; a last one without a neighbour moves up as it is and is never paired with itself, so that two different lists
of leaves have two different roots.
"""

from collections.abc import Iterable

from sparkle_protocol.errors import LocalProtocolError
from sparkle_protocol.ids import digest

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


def _hashed(leaves: Iterable[bytes]) -> list[bytes]:
    level = [digest(_LEAF + leaf) for leaf in leaves]
    if not level:
        raise LocalProtocolError("a Merkle tree has at least one leaf")
    return level


def _above(level: list[bytes]) -> list[bytes]:
    nodes = [digest(_NODE + level[left] + level[left + 1]) for left in range(0, len(level) - 1, 2)]
    return nodes + level[len(level) & ~1 :]
