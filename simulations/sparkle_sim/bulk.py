"""The data plane of a simulated node: it gives its blobs to others and reads theirs.

What ``sparkle_p2p.net.bulk`` does over HTTPS is done here with flows over ``uplinks``; which peer is asked for which
chunk, and when somebody is given up, the production cores decide. A connection costs three round trips (a ticket,
TCP, TLS) and is used again for as long as it stays open; TCP's slow start is not modelled. Over a relay or a punched
hole blobs come in pieces, on the same lines and without these round trips.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sparkle_protocol.blobs.keeping import Keeping
from sparkle_protocol.blobs.limits import (
    CHUNK_S,
    IDLE_S,
    MAX_ANSWERS,
    MAX_ANSWERS_PER_PEER,
    MAX_FETCHES,
    REPLY_S,
    split_sources,
)
from sparkle_protocol.blobs.link import LinkEstimate
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.errors import RemoteProtocolError, RequestTimeout, TransportError
from sparkle_protocol.ids import PeerId
from sparkle_protocol.messages import MAX_PIECE_BYTES
from sparkle_sim.blobs import BlobFiles, outline_of
from sparkle_sim.draws import draws
from sparkle_sim.fetching import BlobFetch, Declined, Stream
from sparkle_sim.kernel import SECOND
from sparkle_sim.processes import Loop, Places, Promise

if TYPE_CHECKING:
    from sparkle_sim.peer import Peer
    from sparkle_sim.world import World

OPENING_TRIPS = 3
HEAD = bytes(256)  # of a request without its content, or of a short answer
MAX_LINKS = 1024  # remembered; the one not used for longest is forgotten


class Bulk(Keeping):
    """Blobs in and out of a node, for as long as its process lives.

    Args:
        world: the run.
        peer: whose they are.
        files: on its disk.
        loop: what its coroutines run on.
        of: the same of another peer; None while that is not up.
    """

    def __init__(
        self, world: "World", peer: "Peer", files: BlobFiles, loop: Loop, of: "Callable[[int], Bulk | None]"
    ) -> None:
        self.pinned: dict[BlobId, int] = {}  # under how many names
        super().__init__(self._one_more, self._one_less)
        self.world = world
        self.number = peer.number
        self.me: PeerId = peer.id
        self.files = files
        self.loop = loop
        self.peer = peer
        self.places = Places(MAX_FETCHES)
        self.running: dict[BlobId, BlobFetch] = {}
        self.links: dict[PeerId, LinkEstimate] = {}
        self.moved_bytes = 0  # to others
        self._of = of
        self._sync = draws(world.seed, peer.number, "blobs", peer.lives)
        self._answers: Counter[int] = Counter()  # being given, by asker
        self._idle: dict[int, list[int]] = {}  # open connections to servers, until when each

    def _one_more(self, blob: BlobId) -> None:
        self.pinned[blob] = self.pinned.get(blob, 0) + 1

    def _one_less(self, blob: BlobId) -> None:
        self.pinned[blob] -= 1
        if not self.pinned[blob]:
            del self.pinned[blob]

    # --- fetching ---------------------------------------------------------------------------------------------

    async def fetch(
        self,
        blob: BlobId,
        sources: Sequence[PeerId],
        *,
        size: int | None = None,
        likely: int | None = None,
        durable: bool = False,
    ) -> None:
        """Have a blob here; keep it first. As ``sparkle_p2p.node.data_plane.DataPlane.fetch``.

        Raises:
            TransportError: nobody gives it now.
            StorageError: it does not fit.
            RemoteProtocolError: it has another size.
        """
        if self.files.use(blob) is None:
            await self._fetch_shared(blob, *split_sources(sources, likely, self.me), size)
        if size is not None and self.files.size(blob) != size:
            raise RemoteProtocolError(f"a blob has {self.files.size(blob)} bytes and should have {size}")
        if durable:
            await self.loop.sleep(self._sync.uniform(*self.peer.machine.sync_s))

    async def _fetch_shared(
        self, blob: BlobId, first: Sequence[PeerId], spare: Sequence[PeerId], size: int | None
    ) -> None:
        """A blob that is on its way already is not fetched twice: its sources join in."""
        running = self.running.get(blob)
        if running is None:
            running = self.running[blob] = BlobFetch(self, blob, size)
            running.add(first, spare)
            process = running.process = self.loop.begin(running.run())
        else:
            running.add(first, spare)
            process = running.started
        running.waiting += 1
        try:
            await process.ended
        finally:
            running.waiting -= 1
            if not running.waiting:
                process.cancel()

    async def ask(self, target: int, question: "Callable[[Bulk], tuple[int | None, bytes]]") -> int | None:
        """What another peer answers: a number, beside what that takes on the wire. Raises TransportError."""
        await self._connected(target)
        answer: Promise[int | None] = Promise()

        def serve(far: Bulk) -> None:
            value, payload = question(far)
            self.world.network.send(target, self.number, self._hear, answer, value, payload)

        self.world.network.send(self.number, target, self._deliver, target, serve, HEAD)
        timeout = RequestTimeout("it did not answer in time")
        self.world.kernel.after(int(REPLY_S * SECOND), answer.fail, timeout)
        return await answer

    def _deliver(self, target: int, call: "Callable[[Bulk], None]", _carried: bytes) -> None:
        """A message is at another peer: its event loop does what it says, if it lives by then."""

        def run() -> None:
            far = self._of(target)
            if far is not None:
                call(far)

        self.world.peers[target].arrive(run)

    def _hear(self, answer: Promise[int | None], value: int | None, _carried: bytes) -> None:
        self.peer.arrive(answer.set, value)

    async def _connected(self, target: int) -> None:
        network = self.world.network
        if not network.connected(self.number, target):
            dialled: Promise[bool] = Promise()
            network.dial(self.number, target, dialled.set)
            if not await dialled:
                raise TransportError("it cannot be reached")

    async def read(self, target: int, stream: Stream) -> None:
        """Have a span of chunks come from a peer. Raises TransportError, Declined."""
        await self._connected(target)
        network, kernel = self.world.network, self.world.kernel
        direct = stream.marks[-1] > MAX_PIECE_BYTES and not network.is_relayed(self.number, target)
        if direct and not self._has_idle(target):
            trip_ns = network.delay_ns(self.number, target) + network.delay_ns(target, self.number)
            await self.loop.sleep(OPENING_TRIPS * trip_ns / SECOND)
        network.send(self.number, target, self._deliver, target, lambda far: far.serve(stream), HEAD)
        try:
            await stream.answer
            if direct:
                self._idle.setdefault(target, []).append(kernel.now + int(IDLE_S * SECOND))
        finally:
            stream.left = True
            flow = stream.flow
            if flow is not None and not flow.over and network.reaches(self.number, target):
                kernel.after(network.delay_ns(self.number, target), self._leave, target, stream)

    def _has_idle(self, target: int) -> bool:
        """Take a connection that is open and has nothing to do."""
        idle, now = self._idle.get(target, []), self.world.kernel.now
        while idle:
            if idle.pop() > now:
                return True
        return False

    def _leave(self, target: int, stream: Stream) -> None:
        far = self._of(target)
        if far is not None:
            far.end_answer(stream)

    def learn(self, links: dict[PeerId, LinkEstimate]) -> None:
        """What a transfer told about the lines to peers."""
        for peer, link in links.items():
            self.links.pop(peer, None)
            self.links[peer] = link
        while len(self.links) > MAX_LINKS:
            del self.links[next(iter(self.links))]

    # --- serving ----------------------------------------------------------------------------------------------

    def tell_outline(self, blob: BlobId) -> tuple[int | None, bytes]:
        """The size of a blob of ours, and what its outline takes on the wire; None: it is not here."""
        size = self.files.use(blob)
        return (None, HEAD) if size is None else (size, outline_of(size).hashes)

    def serve(self, stream: Stream) -> None:
        """Send what a peer asks for, within the bounds that a node has."""
        if stream.left:
            return
        asker = stream.asker.number
        if self.files.use(stream.blob) is None:
            self._refuse(stream, Declined("it has no such blob"))
        elif self._answers.total() >= MAX_ANSWERS or self._answers[asker] >= MAX_ANSWERS_PER_PEER:
            self._refuse(stream, TransportError("too many requests at a time"))
        else:
            network = self.world.network
            self._answers[asker] += 1
            stream.serving = True
            stream.delay_ns = network.delay_ns(self.number, asker)
            stream.flow = network.uplinks.start(
                self.number,
                asker,
                stream.marks,
                lambda mark: self._sent(stream, mark),
                lambda gone, silently: self._broke(stream, gone, silently),
            )
            self._watch(stream, 0)

    def _refuse(self, stream: Stream, error: TransportError) -> None:
        network, asker = self.world.network, stream.asker
        network.send(self.number, asker.number, asker.peer.arrive, stream.answer.fail, error)

    def _sent(self, stream: Stream, mark: int) -> None:
        self.moved_bytes += stream.marks[mark] - (stream.marks[mark - 1] if mark else 0)
        self.world.kernel.after(stream.delay_ns, stream.asker.peer.arrive, stream.take, mark)
        if mark == len(stream.marks) - 1:
            self._free(stream)

    def _broke(self, stream: Stream, gone: int, silently: bool) -> None:
        kernel, asker = self.world.kernel, stream.asker
        if gone == asker.number:
            kernel.after(int(CHUNK_S * SECOND) if silently else stream.delay_ns, self._free, stream)
        elif not silently and self.world.network.reaches(self.number, asker.number):
            error = TransportError("the connection broke")
            kernel.after(stream.delay_ns, asker.peer.arrive, stream.answer.fail, error)

    def _watch(self, stream: Stream, reached: int) -> None:
        """A reader has so long to take a chunk."""

        def look() -> None:
            flow = stream.flow
            if not stream.serving or flow is None or flow.over:
                return
            if flow.reached == reached:
                self.end_answer(stream)
                stream.asker.peer.arrive(stream.answer.fail, TransportError("it ended the answer"))
            else:
                self._watch(stream, flow.reached)

        self.world.kernel.after(int(CHUNK_S * SECOND), look)

    def end_answer(self, stream: Stream) -> None:
        """Nobody reads it any more."""
        if stream.flow is not None:
            self.world.network.uplinks.stop(stream.flow)
        self._free(stream)

    def _free(self, stream: Stream) -> None:
        if stream.serving:
            stream.serving = False
            asker = stream.asker.number
            self._answers[asker] -= 1
            if not self._answers[asker]:
                del self._answers[asker]

    @property
    def answering(self) -> int:
        """How many answers are being sent now."""
        return self._answers.total()
