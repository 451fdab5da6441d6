"""Ledger entries: what an account states about its own credit, signed and chained by hashes.

====  ==========  ==================================================================================
kind  payload     states
====  ==========  ==================================================================================
1     Genesis     this key opens an account; entry 0 of incarnation 0
2     Hold        so much goes from my balance into the escrow of a job of mine
3     Work        these executions of mine were accepted: their price comes to me from the job's escrow
5     Release     so much of a job's escrow comes back to me
6     Penalty     this account signed two entries with one place: the proof is here
8     Rotate      from now on another key signs for this account
9     Revoke      nobody signs for this account any more
10    Restore     entry 0 of a later incarnation: I lost my place, and this is the last entry of mine that I know
====  ==========  ==================================================================================

The numbers 4 and 7 had other meanings while this was designed; no node ever signed such.

On the wire an entry is the msgpack array ``[body, signature]`` with body = msgpack ``[version, kind, network, key,
account, incarnation, seq, prev, time_ms, payload]``, signature = Ed25519 by ``key`` over ``DOMAIN ‖ body``. Its id is
BLAKE3(body), and ``prev`` is the id of the entry before it (of incarnation and seq - 1; zeros for entry 0).

An account's name follows from the key that opened it, so that whoever knows a peer knows its account. Amounts are
integers, in micro-credits. An entry says nothing by being signed: what counts of it is decided in ``book.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NewType

from msgspec import Meta, MsgspecError
from msgspec.msgpack import Decoder, Encoder

from sparkle_protocol.codec import Wire, decode, encode
from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError
from sparkle_protocol.facts import Epoch, Hash32, Key32, Name, Signer, UnitIndex, Verify
from sparkle_protocol.identity import verify_signature
from sparkle_protocol.ids import HASH_BYTES, PeerId, digest, peer_id_from_key
from sparkle_protocol.ledger_messages import MAX_ENTRY_BYTES as MAX_ENTRY_BYTES
from sparkle_protocol.ledger_messages import MAX_INCARNATIONS as MAX_INCARNATIONS
from sparkle_protocol.ledger_messages import MAX_SEQ as MAX_SEQ
from sparkle_protocol.ledger_messages import Incarnation as Incarnation
from sparkle_protocol.ledger_messages import RawEntry as RawEntry
from sparkle_protocol.ledger_messages import Seq as Seq

DOMAIN = b"sparkle/ledger/v1"
ACCOUNT_DOMAIN = b"sparkle/account/1\x00"
ENTRY_VERSION = 1
MAX_SETTLED = 1024  # executions of one entry: a range of units
MAX_MICRO = 1 << 53  # of one amount: a reader in any language takes it exactly
NO_PREV = bytes(HASH_BYTES)

AccountId = NewType("AccountId", bytes)  # 32 bytes
EntryId = NewType("EntryId", bytes)  # 32 bytes

Micro = Annotated[int, Meta(ge=0, le=MAX_MICRO)]
PositiveMicro = Annotated[int, Meta(ge=1, le=MAX_MICRO)]
Millis = Annotated[int, Meta(ge=0, lt=1 << 53)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]


class Genesis(Wire, tag=1, frozen=True):
    """The account of the key that signs it exists. It says nothing else, so there is one for each key."""


class Hold(Wire, tag=2, frozen=True):
    """A debit into the escrow of a job. One of them pays for a job if it covers all that the spec may come to cost.

    ``expires_ms``: wall clock; a day after it the submitter alone may release what nobody earned.
    """

    job: Hash32
    amount_micro: PositiveMicro
    expires_ms: Millis


class Settled(Wire, frozen=True):
    """One accepted execution of a unit."""

    unit: UnitIndex
    epoch: Epoch


class Work(Wire, tag=3, frozen=True):
    """Executions by this account's key that became FINAL, all of one job of ``payer``; each at the job's price.

    ``hold`` is the id of the payer's entry that they are paid from. A worker knows it before it begins; and as it
    names it by hash, what pays for what is never a circle.
    """

    job: Hash32
    payer: Hash32
    hold: Hash32
    worker: Key32  # the key that the job's facts name
    amount_micro: Micro
    units: Annotated[list[Settled], Meta(min_length=1, max_length=MAX_SETTLED)]


class Release(Wire, tag=5, frozen=True):
    """A credit out of the escrow of a job of this account's own."""

    job: Hash32
    amount_micro: PositiveMicro


class Penalty(Wire, tag=6, frozen=True):
    """The proof that an account forked: two entries of its with one incarnation and seq."""

    first: RawEntry
    second: RawEntry


class Rotate(Wire, tag=8, frozen=True):
    """``key`` signs from the next entry on. ``consent``: its signature over ``consent_to_rotate``."""

    key: Key32
    consent: Signature


class Revoke(Wire, tag=9, frozen=True):
    """The key may be in the wrong hands: nothing after this entry counts."""


class Restore(Wire, tag=10, frozen=True):
    """The last entry of the incarnation before that this node knew when it began a new one."""

    last_seq: Seq
    last: Hash32


Payload = Genesis | Hold | Work | Release | Penalty | Rotate | Revoke | Restore
_PAYLOAD: Any = Payload  # a union is no ``type`` to mypy
KINDS: dict[type, int] = {
    Genesis: 1, Hold: 2, Work: 3, Release: 5, Penalty: 6, Rotate: 8, Revoke: 9, Restore: 10,
}  # fmt: skip


class _Sealed(Wire, frozen=True):
    body: Annotated[bytes, Meta(max_length=MAX_ENTRY_BYTES)]
    signature: Signature


class _Body(Wire, frozen=True):
    version: int
    kind: int
    network: Name
    key: Key32
    account: Hash32
    incarnation: Incarnation
    seq: Seq
    prev: Hash32
    time_ms: Millis  # the author's wall clock; informative, decides nothing
    payload: bytes


_ENCODER = Encoder()
_SEALED: Decoder[Any] = Decoder(_Sealed)
_BODY: Decoder[Any] = Decoder(_Body)
_PAYLOADS: Decoder[Any] = Decoder(_PAYLOAD)


def _read(data: bytes, decoder: Decoder[Any], shape: Any, limit: int) -> Any:
    """What ``decode`` reads, in a fifth of the time where the bytes are those that ``encode`` makes.

    Only those are taken from the fast reader, so that no bytes are accepted here and refused by ``decode``.
    """
    if len(data) <= limit:
        try:
            value = decoder.decode(data)
        except (MsgspecError, ValueError, RecursionError):  # the strict reader says what is wrong
            return decode(data, shape, max_bytes=limit)
        if _ENCODER.encode(value) == data:
            return value
    return decode(data, shape, max_bytes=limit)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry stands. Two different entries with one place are a fork."""

    account: AccountId
    incarnation: int
    seq: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A verified signed entry. ``raw`` is what travels and what is stored."""

    id: EntryId
    account: AccountId
    key: bytes
    incarnation: int
    seq: int
    prev: EntryId
    time_ms: int
    payload: Payload
    raw: bytes

    @property
    def place(self) -> Place:
        """Where it stands."""
        return Place(self.account, self.incarnation, self.seq)

    @property
    def author(self) -> PeerId:
        """The peer whose key signed it."""
        return peer_id_from_key(self.key)


def account_of(network: str, key: bytes) -> AccountId:
    """The account that a key opens in a network."""
    return AccountId(digest(ACCOUNT_DOMAIN, network.encode(), b"\x00", key))


def consent_to_rotate(network: str, account: AccountId, incarnation: int, seq: int) -> bytes:
    """What the new key of a ``Rotate`` with this place signs, so that nobody can claim another's earnings."""
    place = incarnation.to_bytes(8, "big") + seq.to_bytes(8, "big")
    return b"".join((b"sparkle/rotate/1\x00", network.encode(), b"\x00", account, place))


class EntryCodec:
    """Signs and opens the entries of one network."""

    __slots__ = ("_verify", "network")

    def __init__(self, network: str, verify: Verify = verify_signature) -> None:
        self.network = network
        self._verify = verify

    def seal(
        self,
        signer: Signer,
        payload: Payload,
        *,
        seq: int,
        prev: bytes = NO_PREV,
        time_ms: int,
        incarnation: int = 0,
        account: AccountId | None = None,
    ) -> Entry:
        """State ``payload`` as entry ``seq`` of the signer's account (or another one that its key was rotated to)."""
        account = account or account_of(self.network, signer.public_key)
        body = encode(
            _Body(
                ENTRY_VERSION, KINDS[type(payload)], self.network, signer.public_key, account, incarnation, seq, prev,
                time_ms, encode(payload),
            )
        )  # fmt: skip
        if len(body) > MAX_ENTRY_BYTES:
            raise LocalProtocolError(f"a {type(payload).__name__} of {len(body)} bytes exceeds {MAX_ENTRY_BYTES}")
        raw = encode(_Sealed(body, signer.sign(DOMAIN + body)))
        return Entry(
            EntryId(digest(body)), account, signer.public_key, incarnation, seq, EntryId(prev), time_ms, payload, raw
        )

    def open(self, raw: bytes) -> Entry:
        """The entry in ``raw`` once signature, network, kind and shape hold.

        Raises:
            RemoteProtocolError: any of them does not.
        """
        return self._open(raw, self._verify)

    def open_known(self, raw: bytes) -> Entry:
        """An entry whose signature was verified before, or is vouched for by a later one of its chain."""
        return self._open(raw, None)

    def _open(self, raw: bytes, verify: Callable[[bytes, bytes, bytes], None] | None) -> Entry:
        sealed: _Sealed = _read(raw, _SEALED, _Sealed, MAX_ENTRY_BYTES + 256)
        body: _Body = _read(sealed.body, _BODY, _Body, MAX_ENTRY_BYTES)
        if body.version != ENTRY_VERSION:
            raise RemoteProtocolError(f"an entry of version {body.version}; this node reads {ENTRY_VERSION}")
        if body.network != self.network:
            raise RemoteProtocolError(f"an entry of network '{body.network}', not '{self.network}'")
        payload: Payload = _read(body.payload, _PAYLOADS, _PAYLOAD, MAX_ENTRY_BYTES)
        if KINDS[type(payload)] != body.kind:
            raise RemoteProtocolError("an entry says that it is of another kind than its payload")
        if verify is not None:
            verify(body.key, sealed.signature, DOMAIN + sealed.body)
        return Entry(
            EntryId(digest(sealed.body)), AccountId(body.account), body.key, body.incarnation, body.seq,
            EntryId(body.prev), body.time_ms, payload, raw,
        )  # fmt: skip
