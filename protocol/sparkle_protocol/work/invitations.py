"""Peers that are given everything about a job, to be its keepers soon.

A guest that refuses, or that gets on with nothing for ``INVITE_NS``, is left out for a while, longer each time, so
that the next best peer is asked; later it is asked again. A guest that nobody wants any more goes without a word.
"""

from dataclasses import dataclass

from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.work.lease import SECOND_NS

INVITE_NS = 120 * SECOND_NS  # for a newcomer to take something of what it is given
LONGEST_NS = 1800 * SECOND_NS  # for all of it
WANTED_NS = 30 * SECOND_NS  # a guest is asked for about every 5 s, as long as it is wanted
LEFT_OUT_NS = 300 * SECOND_NS
MAX_LEFT_OUT_NS = 6 * 3600 * SECOND_NS
MAX_LEFT_OUT = 256  # peers of one job; the one that was left out first is forgotten


@dataclass(slots=True)
class _Guest:
    since_ns: int
    moved_ns: int  # when it last took something
    wanted_ns: int


@dataclass(slots=True)
class _LeftOut:
    times: int = 0
    until_ns: int = 0


class Invitations:
    """Guests by job, and who was one in vain."""

    def __init__(self) -> None:
        self._guests: dict[JobId, dict[PeerId, _Guest]] = {}
        self._left_out: dict[JobId, dict[PeerId, _LeftOut]] = {}

    def of(self, job: JobId) -> tuple[PeerId, ...]:
        """The job's guests."""
        return tuple(self._guests.get(job, ()))

    def want(self, job: JobId, peer: PeerId, now_ns: int) -> bool:
        """Have a peer as a guest; True when it was none."""
        guests = self._guests.setdefault(job, {})
        if peer in guests:
            guests[peer].wanted_ns = now_ns
            return False
        guests[peer] = _Guest(now_ns, now_ns, now_ns)
        return True

    def moved(self, job: JobId, peer: PeerId, now_ns: int) -> None:
        """A guest took something."""
        guest = self._guests.get(job, {}).get(peer)
        if guest is not None:
            guest.moved_ns = now_ns

    def is_slow(self, job: JobId, peer: PeerId, now_ns: int) -> bool:
        """A guest took nothing for long, or takes too long altogether."""
        guest = self._guests.get(job, {}).get(peer)
        return guest is not None and (now_ns - guest.moved_ns >= INVITE_NS or now_ns - guest.since_ns >= LONGEST_NS)

    def give_up(self, job: JobId, peer: PeerId, now_ns: int) -> None:
        """A peer is no guest any more, nor is it asked again soon."""
        self._guests.get(job, {}).pop(peer, None)
        left_out = self._left_out.setdefault(job, {})
        one = left_out.setdefault(peer, _LeftOut())
        one.until_ns = now_ns + min(MAX_LEFT_OUT_NS, LEFT_OUT_NS << min(one.times, 16))
        one.times += 1
        while len(left_out) > MAX_LEFT_OUT:
            del left_out[next(iter(left_out))]

    def left_out(self, job: JobId, now_ns: int) -> set[PeerId]:
        """Who is not asked at the moment."""
        return {peer for peer, one in self._left_out.get(job, {}).items() if now_ns < one.until_ns}

    def dismiss(self, job: JobId, now_ns: int) -> list[PeerId]:
        """Let those go that nobody has wanted lately; returns them."""
        guests = self._guests.get(job, {})
        gone = [peer for peer, guest in guests.items() if now_ns - guest.wanted_ns >= WANTED_NS]
        for peer in gone:
            del guests[peer]
        return gone

    def close(self, job: JobId) -> None:
        """The job has other keepers now: nobody is a guest."""
        self._guests.pop(job, None)

    def forget(self, job: JobId) -> None:
        """The job is not kept any more."""
        self._guests.pop(job, None)
        self._left_out.pop(job, None)
