"""The genesis record of a network: what its founders agreed on before anybody signed anything.

All nodes of a network must have the same, else one of them counts an entry and another does not, and nobody sees why.
So a node tells the record's digest to whoever it meets, and its ledger remembers by which record it was judged. A
node that was given none has the default record of its network's name.

The digest is BLAKE3 of ``DOMAIN`` and the msgpack array of the fields in their order, both lists sorted.
"""

from typing import Annotated

from msgspec import Meta

from sparkle_ledger.economy import Economy
from sparkle_ledger.entries import AccountId, Micro, account_of
from sparkle_protocol.codec import Wire, decode, encode
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import Name
from sparkle_protocol.ids import PeerId, digest, key_from_peer_id

DOMAIN = b"sparkle/genesis/1\x00"
MAX_FOUNDERS = 1024  # as many as a node may name as trusted
MAX_LAMBDA_PERCENT = 1000  # who may owe ten times what it gave has every reason to leave
MAX_PAYER_SHARE = 64
DEFAULT = Economy()

Peers = Annotated[tuple[PeerId, ...], Meta(max_length=MAX_FOUNDERS)]


class GenesisRecord(Wire, frozen=True):
    """A network's name, the terms of its credit (see ``Economy``) and its founders.

    Attributes:
        trusted: founders whose results and whose word every node of the network believes, as its owner's own choice.
        unlimited: founders whose accounts may go down without end.
    """

    network: Name
    limit_max_micro: Micro = DEFAULT.limit_max_micro
    starter_micro: Micro = DEFAULT.starter_micro
    lambda_percent: Annotated[int, Meta(ge=0, le=MAX_LAMBDA_PERCENT)] = DEFAULT.lambda_percent
    payer_share: Annotated[int, Meta(ge=1, le=MAX_PAYER_SHARE)] = DEFAULT.payer_share
    trusted: Peers = ()
    unlimited: Peers = ()

    def raw(self) -> bytes:
        """The bytes that its digest is of, whatever the order in which founders were named."""
        terms = (self.limit_max_micro, self.starter_micro, self.lambda_percent, self.payer_share)
        founders = (tuple(sorted(set(peers))) for peers in (self.trusted, self.unlimited))
        return encode(GenesisRecord(self.network, *terms, *founders))

    @property
    def digest(self) -> str:
        """By which two nodes see that they have the same record: 64 hexadecimal digits."""
        return digest(DOMAIN, self.raw()).hex()

    @property
    def fingerprint(self) -> str:
        """The beginning of the digest, by which people compare."""
        return self.digest[:16]

    @property
    def economy(self) -> Economy:
        """By which the network's entries are judged."""
        accounts = frozenset(account_of(self.network, key_from_peer_id(peer)) for peer in self.unlimited)
        return Economy(
            self.limit_max_micro, self.lambda_percent, self.starter_micro, self.payer_share, unlimited=accounts
        )

    @property
    def vouched(self) -> dict[AccountId, int]:
        """Micro-credits that each node trusts a trusted founder's account with before it knows anything of it.

        As much as anybody may owe from the first day on: what that founder paid others for is worth something to all.
        """
        accounts = [account_of(self.network, key_from_peer_id(peer)) for peer in self.trusted]
        return dict.fromkeys(accounts, self.starter_micro)


def decode_genesis(raw: bytes) -> GenesisRecord:
    """The record whose ``raw`` bytes these are.

    Raises:
        RemoteProtocolError: they are not.
    """
    record = decode(raw, GenesisRecord)
    for peer in (*record.trusted, *record.unlimited):
        key_from_peer_id(peer)
    if record.raw() != raw:
        raise RemoteProtocolError("a genesis record is not in its one form")
    return record
