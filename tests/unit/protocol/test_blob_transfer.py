"""Which chunk is asked of which source, when, and what becomes of bad ones."""

import pytest

from sparkle_protocol.blobs import transfer as tr
from sparkle_protocol.blobs.bitmap import Bitmap
from sparkle_protocol.blobs.link import LinkEstimate, LinkMeter
from sparkle_protocol.blobs.source import MAX_ASKS, MAX_SPAN
from sparkle_protocol.ids import PeerId
from tests.unit.protocol.blob_sources import SECOND, Model, Run, outline_of, steady

MB = 1 << 20


def test_one_source_sends_everything_once() -> None:
    run = Run(outline_of(100), {"a": steady(20 * MB)}).go()
    assert run.finished
    assert run.sent["a"] == 100
    assert set(run.asked.values()) == {1}
    assert run.now_s < 5 * 1.1


def test_only_what_is_missing_is_asked_for() -> None:
    have = Bitmap(20)
    for chunk in (0, 1, 5, 6, 7, 19):
        have.add(chunk)
    run = Run(outline_of(20), {"a": steady(20 * MB)}, have).go()
    assert run.finished
    assert sorted(run.asked) == [chunk for chunk in range(20) if chunk not in have]


def test_sources_share_by_their_speed() -> None:
    run = Run(outline_of(400), {"a": steady(30 * MB), "b": steady(10 * MB)}).go()
    assert run.finished
    assert run.now_s < 10 * 1.15
    assert run.sent["a"] == pytest.approx(300, abs=30)
    assert sum(run.asked.values()) <= 400 + MAX_SPAN


def test_asks_are_ahead_of_a_far_source_but_few() -> None:
    run = Run(outline_of(200), {"a": steady(50 * MB, latency_s=0.2)}).go()
    assert run.finished
    assert run.now_s < 4 * 1.3 + 1  # the first ask is small; then no round trip is waited for
    open_asks = 0
    for _, effect in run.effects:
        open_asks += isinstance(effect, tr.AskChunks)
    assert open_asks < 200 / 4
    assert MAX_ASKS == 2


def test_a_wrong_chunk_is_evidence_and_the_others_go_on() -> None:
    run = Run(outline_of(60), {"a": steady(10 * MB), "b": steady(10 * MB, wrong=frozenset(range(60)))}).go()
    assert run.finished
    (drop,) = run.of(tr.DropSource)
    assert isinstance(drop, tr.DropSource)
    assert drop.source == "b"
    assert drop.violation
    assert "hash" in drop.reason
    assert run.sent["b"] == 1  # nothing more was asked of it


def test_if_all_lie_it_gives_up_and_says_why() -> None:
    run = Run(outline_of(6), {"a": steady(MB, wrong=frozenset([0])), "b": steady(MB, wrong=frozenset(range(6)))}).go()
    (gave_up,) = run.of(tr.GaveUp)
    assert isinstance(gave_up, tr.GaveUp)
    assert "no source is left" in gave_up.reason
    assert "chunk 0 is not what its hash says" in gave_up.reason


def test_a_source_that_trickles_is_overtaken_at_once_and_dropped() -> None:
    """Its chunks come from the other before the ten seconds are over that it has to show better."""
    run = Run(outline_of(40), {"slow": steady(1), "fast": steady(10 * MB)}).go()
    assert run.finished
    assert run.now_s < 4 + 3
    assert run.sent["slow"] == 0
    long = Run(outline_of(300), {"slow": steady(1), "fast": steady(10 * MB)}).go()
    assert long.finished
    (drop,) = long.of(tr.DropSource)
    assert isinstance(drop, tr.DropSource)
    assert not drop.violation
    assert "less than 16 KiB" in drop.reason


def test_a_slow_source_just_above_the_floor_is_kept() -> None:
    run = Run(outline_of(2), {"a": steady(20 << 10)}).go()
    assert run.finished
    assert not run.of(tr.DropSource)


def test_a_lone_source_that_trickles_ends_the_wait_and_not_the_blob() -> None:
    run = Run(outline_of(10), {"a": steady(1)}).go()
    (gave_up,) = run.of(tr.GaveUp)
    assert isinstance(gave_up, tr.GaveUp)
    assert "nothing came for 60 s" in gave_up.reason
    assert run.now_s == pytest.approx(60, abs=1)


def test_a_broken_connection_is_made_again_and_nothing_is_sent_twice() -> None:
    run = Run(outline_of(100), {"a": steady(10 * MB, breaks_at_s=(2.0, 5.0))}).go()
    assert run.finished
    assert run.sent["a"] == 100
    assert run.now_s < 10 + 3


def test_a_lost_source_s_chunks_go_elsewhere() -> None:
    dies = Model(lambda now_s: 10 * MB if now_s < 3 else 0.0, breaks_at_s=(3.0,))
    run = Run(outline_of(100), {"a": dies, "b": steady(10 * MB)}).go()
    assert run.finished
    assert run.now_s < 3 + 4 + 3


def test_a_source_that_falls_silent_without_a_word_is_overtaken() -> None:
    silent = Model(lambda now_s: 10 * MB if now_s < 2 else 0.0)
    run = Run(outline_of(80), {"a": silent, "b": steady(10 * MB)}).go()
    assert run.finished
    assert run.now_s < 2 + 4 + 4


def test_a_link_that_is_cut_for_a_while_is_waited_for() -> None:
    cut = Model(lambda now_s: 0.0 if 2 < now_s < 20 else 10 * MB)
    run = Run(outline_of(60), {"a": cut}).go()
    assert run.finished
    assert run.sent["a"] <= 62


def test_the_end_does_not_flood() -> None:
    """However many idle sources there are, a chunk is on its way at most twice."""
    models = {f"s{n}": steady(10 * MB) for n in range(8)} | {"slow": steady(100 << 10)}
    run = Run(outline_of(64), models).go()
    assert run.finished
    assert max(run.asked.values()) <= 2
    assert sum(run.asked.values()) <= 64 + MAX_SPAN


def test_a_source_that_refuses_is_not_asked_again_and_did_nothing_wrong() -> None:
    core = tr.Transfer(outline_of(4), Bitmap(4))
    (ask,) = core.handle(tr.SourceJoined(PeerId("a")), 0)
    assert isinstance(ask, tr.AskChunks)
    drop, gave_up = core.handle(tr.AskFailed(ask.ask, "refused", "no such blob"), 1)
    assert drop == tr.DropSource(PeerId("a"), "no such blob", False)
    assert isinstance(gave_up, tr.GaveUp)
    assert core.over
    assert core.handle(tr.SourceJoined(PeerId("b")), 2) == ()


def test_a_source_is_not_blamed_while_our_disk_is_slow() -> None:
    core = tr.Transfer(outline_of(4), Bitmap(4))
    (ask,) = core.handle(tr.SourceJoined(PeerId("a")), 0)
    core.handle(tr.SourceJoined(PeerId("b")), 0)
    assert isinstance(ask, tr.AskChunks)
    core.handle(tr.BytesCame(ask.ask, 100), 1)
    core.handle(tr.ChunkCame(ask.ask, ask.first), 1)
    effects = core.handle(tr.Tick(), 15 * SECOND)
    assert not any(isinstance(effect, tr.DropSource) and effect.source == "a" for effect in effects)


def test_a_chunk_that_is_stored_after_its_ask_was_cancelled_counts() -> None:
    core = tr.Transfer(outline_of(1), Bitmap(1))
    core.handle(tr.SourceJoined(PeerId("a")), 0)
    core.handle(tr.AskFailed(1, "lost", "broke"), 1)
    assert core.handle(tr.ChunkStored(1, 0), 2)[-1] == tr.Finished()


def test_a_fast_link_is_not_slowed_by_compression() -> None:
    core = tr.Transfer(outline_of(9), Bitmap(9))
    slow, *_ = core.handle(tr.SourceJoined(PeerId("a"), LinkEstimate(1000, 1e6)), 0)
    fast, *_ = core.handle(tr.SourceJoined(PeerId("b"), LinkEstimate(1000, 1e9)), 0)
    assert isinstance(slow, tr.AskChunks)
    assert isinstance(fast, tr.AskChunks)
    assert (slow.compress, fast.compress) == (True, False)


def test_links_are_measured_in_passing() -> None:
    run = Run(outline_of(100), {"a": steady(10 * MB, latency_s=0.06)}).go()
    meter = run.core.sources[PeerId("a")].meter
    assert meter.bytes_per_s == pytest.approx(10 * MB, rel=0.1)
    assert meter.latency_ns == pytest.approx(0.08 * SECOND, rel=0.5)
    assert meter.received == pytest.approx(100 * MB, rel=0.01)


def test_a_meter_follows_a_link_that_becomes_slow() -> None:
    meter = LinkMeter(LinkEstimate(None, 100e6))
    meter.busy(0)
    assert meter.rate(SECOND // 2) == 100e6
    assert meter.rate(2 * SECOND) == 0
    meter.took(1000, 2 * SECOND)
    assert 0 < meter.estimate.bytes_per_s < 100e6  # type: ignore[operator]
