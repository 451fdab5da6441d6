"""One copy of what many simulated nodes hold: facts and messages are immutable, so nodes can share them.

Eight keepers that verify the same fact would hold eight equal copies of it, and nine tenths of a large run would be
spent on making them. Here a fact is verified and read when the first node sees its bytes; the others are given the
same object. A message of an honest node comes as the object that its bytes were made from. Every so often it is read
from the bytes all the same and compared, so that a codec that changes what it carries is found.
"""

from collections.abc import Container, Iterable

from sparkle_protocol import messages
from sparkle_protocol.errors import LocalProtocolError
from sparkle_protocol.facts import Fact, FactCodec, Payload, Signer, Verify
from sparkle_protocol.ids import FactId

MIN_SHARED = 4096  # facts that are remembered at least
SMALL = 200  # peers; in runs with fewer each message is read from its bytes
COMPARED = 32  # in larger ones, of so many messages one is


class SharedFacts(FactCodec):
    """Opens the bytes of a fact once. Those that came first are forgotten first.

    Args:
        network: whose facts.
        verify: of signatures.
        peers: in the run; it decides how many facts are remembered.
    """

    __slots__ = ("_limit", "_opened")

    def __init__(self, network: str, verify: Verify, peers: int) -> None:
        super().__init__(network, verify)
        self._opened: dict[bytes, Fact] = {}
        self._limit = max(MIN_SHARED, 4 * peers)

    def seal(self, signer: Signer, payload: Payload) -> Fact:
        """State ``payload`` as ``signer``."""
        return self._share(super().seal(signer, payload))

    def open(self, raw: bytes) -> Fact:
        """The fact in ``raw`` once signature, network, kind and shape hold. Raises RemoteProtocolError."""
        return self._opened.get(raw) or self._share(super().open(raw))

    def id_of(self, raw: bytes) -> FactId:
        """The id of a fact that may not be verified yet. Raises RemoteProtocolError."""
        fact = self._opened.get(raw)
        return fact.id if fact is not None else super().id_of(raw)

    def open_new(self, raws: Iterable[bytes], known: Container[FactId]) -> list[Fact]:
        """Those of the facts that are not known yet. Raises RemoteProtocolError as ``open`` does."""
        opened = [self.open(raw) for raw in raws]
        return [fact for fact in opened if fact.id not in known]

    def _share(self, fact: Fact) -> Fact:
        if len(self._opened) >= self._limit:
            del self._opened[next(iter(self._opened))]
        self._opened[fact.raw] = fact
        return fact


class Wire:
    """What messages say: read from their bytes, or as they were before they were encoded.

    Args:
        peers: in the run; it decides how many messages are read from their bytes.
    """

    __slots__ = ("_count", "_every")

    def __init__(self, peers: int) -> None:
        self._every = 1 if peers < SMALL else COMPARED
        self._count = 0

    def request(self, message: messages.Request | None, raw: bytes) -> messages.Request:
        """The request. Raises RemoteProtocolError."""
        if message is not None and self._passes():
            return message
        decoded = messages.decode_request(raw)
        _compare(message, decoded)
        return decoded

    def reply(self, message: messages.Reply | None, raw: bytes) -> messages.Reply:
        """The reply. Raises RemoteProtocolError."""
        if message is not None and self._passes():
            return message
        decoded = messages.decode_reply(raw)
        _compare(message, decoded)
        return decoded

    def _passes(self) -> bool:
        """Whether this message is taken as it is."""
        self._count += 1
        return self._count % self._every != 0


def _compare(message: object, decoded: object) -> None:
    """Raise LocalProtocolError if a message is another one when it is read again."""
    if message is not None and decoded != message:
        raise LocalProtocolError(f"a {type(message).__name__} is another one after encoding: {decoded!r:.200}")
