"""Whom to ask for a blob, and when: outlines one peer after the other, spare sources only when others fail."""

from sparkle_protocol.blobs import transfer as tr
from sparkle_protocol.blobs.bitmap import Bitmap
from sparkle_protocol.blobs.limits import pause_s, split_sources
from sparkle_protocol.blobs.link import NS
from sparkle_protocol.blobs.outlines import NEXT_NS, AskOutline, NobodyTells, NotTold, OutlineSearch, Tick
from sparkle_protocol.blobs.spare_sources import SpareSources
from sparkle_protocol.ids import PeerId
from tests.unit.protocol.blob_sources import outline_of

A, B, C, ME = PeerId("a"), PeerId("b"), PeerId("c"), PeerId("me")


def test_the_next_peer_is_asked_for_an_outline_when_one_says_no_or_nobody_answers() -> None:
    search = OutlineSearch([A, B, A, C])
    assert search.handle(Tick(), 0) == (AskOutline(A),)
    assert search.next_deadline() == NEXT_NS
    assert search.handle(Tick(), NEXT_NS - 1) == ()
    assert search.handle(Tick(), NEXT_NS) == (AskOutline(B),)
    assert search.handle(NotTold(B, "no"), NEXT_NS + 1) == (AskOutline(C),)
    assert search.next_deadline() is None  # who was asked may still answer
    assert search.handle(NotTold(B, "no"), NEXT_NS + 2) == ()  # said twice
    assert search.handle(NotTold(C, "no"), NEXT_NS + 3) == ()
    (end,) = search.handle(NotTold(A, ""), NEXT_NS + 4)
    assert isinstance(end, NobodyTells)
    assert "it did not answer" in end.reason


def test_nobody_to_ask_for_an_outline() -> None:
    assert OutlineSearch([]).handle(Tick(), 0) == (NobodyTells("none was named"),)


def test_the_likely_sources_come_first_and_without_any_the_others_do() -> None:
    assert split_sources([A, ME, B, A, C], 3, ME) == ([A, B], [C])
    assert split_sources([ME, B, C], 1, ME) == ([B, C], [])
    assert split_sources([A, B], None, ME) == ([A, B], [])
    assert [pause_s(attempt) for attempt in (0, 1, 9)] == [1.0, 2.0, 60.0]


def asked(effects: tuple[tr.Effect, ...]) -> list[PeerId]:
    return [effect.source for effect in effects if isinstance(effect, tr.AskChunks)]


def sourcing() -> SpareSources:
    outline = outline_of(8)
    found = SpareSources(tr.Transfer(outline, Bitmap(outline.chunks)))
    found.add(B)
    return found


def test_spare_sources_are_asked_when_nothing_was_stored_for_a_while() -> None:
    one = sourcing()
    assert asked(one.handle(tr.SourceJoined(A), 0)) == [A]
    assert one.next_deadline() == 2 * NS
    one.handle(tr.ChunkStored(1, 0), NS)
    assert B not in asked(one.handle(tr.Tick(), 2 * NS))  # something was
    assert one.next_deadline() == 4 * NS
    assert B in asked(one.handle(tr.Tick(), 4 * NS))
    assert one.next_deadline() not in (2 * NS, 4 * NS)


def test_spare_sources_are_asked_before_the_transfer_finds_that_none_is_left() -> None:
    one = sourcing()
    one.handle(tr.SourceJoined(A), 0)
    effects = one.handle(tr.AskFailed(1, "refused", "no such blob"), NS)
    assert asked(effects) == [B]
    assert not any(isinstance(effect, tr.GaveUp) for effect in effects)
    assert not one.transfer.over
