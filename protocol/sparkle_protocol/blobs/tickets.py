"""Tickets: leave to read one blob over HTTPS, for one peer and a short time.

The holder of a blob issues a ticket in answer to a request over libp2p, whose channel tells who asks and keeps the
ticket's key from others::

    body   = version:u8 ‖ asker's key ‖ blob id ‖ serial:u64 ‖ expires:u64 (holder's clock)
    ticket = body ‖ BLAKE3 keyed with the holder's secret of this run ("…ticket/v1" ‖ body)
    key    =        BLAKE3 keyed with the same secret          ("…ticket-key/v1" ‖ body)

Every HTTP request carries the ticket, a number that it was not used with before, and a proof: BLAKE3, keyed with the
ticket's key, of ticket, number, range of chunks and the server's certificate. So a ticket that somebody else saw is
worthless, and so is a request. Any number of requests can be made with a ticket until it expires, also at once: the
holder remembers the highest number and which of the ``WINDOW`` before it were used, as IPsec does (RFC 4303, 3.4.3).
"""

import base64
import binascii
import hmac
import struct
from dataclasses import dataclass, field

from blake3 import blake3

from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.ids import HASH_BYTES, PeerId, key_from_peer_id, peer_id_from_key

NS = 1_000_000_000
TICKET_TTL_NS = 120 * NS  # an ask that is under way when it ends goes on
TICKET_BYTES = 1 + 32 + 32 + 8 + 8 + 32
MAX_TICKETS = 4096  # in use at a time; beyond that a further one is refused until others have expired
MAX_TICKETS_PER_PEER = 256
WINDOW = 256  # numbers that may arrive late
SCHEME = "Sparkle-Ticket"

_VERSION = 1
_BODY = struct.Struct(">B32s32sQQ")
_TICKET = b"sparkle/blob/ticket/v1"
_KEY = b"sparkle/blob/ticket-key/v1"
_PROOF = b"sparkle/blob/request/v1"


class TicketRefused(RemoteProtocolError):
    """The ticket, or the request made with it, is not good for this."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request with a ticket is for."""

    blob: BlobId
    first: int
    last: int
    compress: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """What a holder hands out: the ticket, and the key that stays between the two peers."""

    ticket: bytes
    key: bytes
    ttl_ns: int


def _proof(key: bytes, ticket: bytes, number: int, wanted: Wanted, certificate: bytes) -> bytes:
    asked = struct.pack(">QIIB", number, wanted.first, wanted.last, wanted.compress)
    return blake3(_PROOF + ticket + asked + certificate, key=key).digest()


class Ticket:
    """The asker's side: makes the header of each request."""

    def __init__(self, grant: Grant, now_ns: int) -> None:
        self._grant = grant
        self._number = 0
        self._fresh_until_ns = now_ns + grant.ttl_ns * 3 // 4

    def fresh(self, now_ns: int) -> bool:
        """Whether it is good for another request, with time to spare."""
        return now_ns < self._fresh_until_ns

    def header(self, wanted: Wanted, certificate: bytes) -> str:
        """Value of the header ``Authorization``; a new one each time."""
        self._number += 1
        grant = self._grant
        proof = _proof(grant.key, grant.ticket, self._number, wanted, certificate)
        encoded = (base64.b64encode(part).decode("ascii") for part in (grant.ticket, proof))
        return f"{SCHEME} {' '.join(encoded)} {self._number}"


@dataclass(slots=True)
class _Use:
    """Which numbers a ticket was used with: the highest, and bits for those before it."""

    peer: PeerId
    expires_ns: int
    highest: int = 0
    seen: int = field(default=0)

    def take(self, number: int) -> bool:
        """Whether the number is new, and remember it."""
        if number > self.highest:
            self.seen = (self.seen << (number - self.highest) | 1) & ((1 << WINDOW) - 1) if self.highest else 1
            self.highest = number
            return True
        behind = self.highest - number
        if behind >= WINDOW or self.seen >> behind & 1:
            return False
        self.seen |= 1 << behind
        return True


class TicketOffice:
    """The holder's side: issues tickets and admits requests made with them."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._serial = 0
        self._uses: dict[bytes, _Use] = {}

    def issue(self, peer: PeerId, blob: BlobId, now_ns: int) -> Grant:
        """Leave for ``peer`` to read ``blob`` from now on."""
        self._serial += 1
        body = _BODY.pack(_VERSION, key_from_peer_id(peer), blob, self._serial, now_ns + TICKET_TTL_NS)
        return Grant(body + self._keyed(_TICKET, body), self._keyed(_KEY, body), TICKET_TTL_NS)

    def admit(self, header: str, wanted: Wanted, certificate: bytes, now_ns: int) -> PeerId:
        """The peer that may make this request, once.

        Raises:
            TicketRefused: not our ticket, for another blob, expired, without proof, or made before.
        """
        ticket, proof, number = _parse(header)
        body, mac = ticket[: _BODY.size], ticket[_BODY.size :]
        if not hmac.compare_digest(mac, self._keyed(_TICKET, body)):
            raise TicketRefused("the ticket was not issued by this node")
        _, key, blob, _, expires_ns = _BODY.unpack(body)
        if not hmac.compare_digest(proof, _proof(self._keyed(_KEY, body), ticket, number, wanted, certificate)):
            raise TicketRefused("the request is not by the peer that the ticket was issued to")
        if blob != wanted.blob:
            raise TicketRefused("the ticket is for another blob")
        if now_ns >= expires_ns:
            raise TicketRefused("the ticket has expired")
        peer = peer_id_from_key(key)
        if not self._use_of(mac, peer, expires_ns, now_ns).take(number):
            raise TicketRefused("the request was made before")
        return peer

    def _use_of(self, mac: bytes, peer: PeerId, expires_ns: int, now_ns: int) -> _Use:
        use = self._uses.get(mac)
        if use is None:
            if len(self._uses) >= MAX_TICKETS or self._used_by(peer) >= MAX_TICKETS_PER_PEER:
                self._uses = {mac: use for mac, use in self._uses.items() if use.expires_ns > now_ns}
            if len(self._uses) >= MAX_TICKETS or self._used_by(peer) >= MAX_TICKETS_PER_PEER:
                raise TicketRefused("too many tickets are in use; try again in two minutes")
            use = self._uses[mac] = _Use(peer, expires_ns)
        return use

    def _used_by(self, peer: PeerId) -> int:
        return sum(use.peer == peer for use in self._uses.values())

    def _keyed(self, domain: bytes, body: bytes) -> bytes:
        return blake3(domain + body, key=self._secret).digest()


def _parse(header: str) -> tuple[bytes, bytes, int]:
    words = header.split(" ")
    if len(words) != 4 or words[0] != SCHEME or not words[3].isascii() or not words[3].isdigit():
        raise TicketRefused("the request carries no ticket")
    try:
        ticket, proof = (base64.b64decode(word, validate=True) for word in words[1:3])
    except (binascii.Error, ValueError) as error:
        raise TicketRefused("the ticket is malformed") from error
    number = int(words[3]) if len(words[3]) < 16 else 0
    if len(ticket) != TICKET_BYTES or len(proof) != HASH_BYTES or number < 1:
        raise TicketRefused("the ticket is malformed")
    return ticket, proof, number
