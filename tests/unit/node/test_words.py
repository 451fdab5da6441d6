"""What the node says: a diary that no peer can deface or fill, and sentences for every event that has one."""

import asyncio

import pytest

from sparkle_p2p.node import diary as diary_module
from sparkle_p2p.node import narrate, offenders
from sparkle_p2p.node.diary import Diary
from sparkle_p2p.node.narrate import many
from sparkle_p2p.node.offenders import Offenders
from sparkle_protocol.effects import Notify
from sparkle_protocol.ids import PeerId

PEER = "12D3KooWHrTvH4VQ24pGBZYPKnk61sCSgzFDGEy3FbFGezvmwW7B"
JOB = "ab" * 32
FIELDS = {
    "job": JOB, "kernel": "prime_count", "units": 4, "unit": 3, "peer": PEER, "error": "no luck", "text": "a word",
    "seconds": 90_000, "address": "/ip4/192.0.2.1/tcp/1", "attempt": 2, "reason": "the disk is full", "peers": 3,
    "keepers": 8, "holding": 6, "view": 2, "device": "cpu/x86_64",
    "state": "ready", "account": "ab" * 32, "own": False,
    "told_by": PEER, "workers": 3,
}  # fmt: skip


def test_the_diary_shows_no_control_characters() -> None:
    """What a peer says cannot draw on a terminal, start a line of its own or turn text around."""
    diary = Diary()
    diary.note("warning", "Rule broken: \x1b[2J\x1b]0;owned\x07 first\nsecond\r\u202egnp.exe\u2028 end")
    (line,) = diary.lines
    assert line.text == "Rule broken:  [2J ]0;owned  first second  gnp.exe  end"


def test_the_diary_is_bounded() -> None:
    diary = Diary()
    for number in range(3 * diary_module.LINES_KEPT):
        diary.note("info", "x" * 10_000 + str(number))
    assert len(diary.lines) == diary_module.LINES_KEPT
    assert max(len(line.text) for line in diary.lines) <= 400


async def test_a_slow_reader_loses_the_oldest_and_hurts_nobody() -> None:
    diary = Diary()
    slow, quick = diary.read(), diary.read()
    waiting = [asyncio.ensure_future(anext(reader)) for reader in (slow, quick)]
    await asyncio.sleep(0)
    count = diary_module.EVENTS_PER_READER + 100
    for number in range(count):
        diary.publish("tick", {"number": number})
    assert [(await event).fields["number"] for event in waiting] == [100, 100]
    assert (await anext(slow)).fields["number"] == 101
    for reader in (slow, quick):
        await reader.aclose()  # type: ignore[attr-defined]
    assert not diary._readers


@pytest.mark.parametrize("event", sorted(narrate._SENTENCES))
def test_every_event_has_a_plain_sentence(event: str) -> None:
    diary = Diary()
    narrate.tell(diary, Notify(event, FIELDS))
    (line,) = diary.lines
    assert 10 < len(line.text) < 200
    assert line.text[0].isupper() or line.text[0] == "…" or event == "storage_failed"
    assert "{" not in line.text
    assert PEER not in line.text  # people get the short form


@pytest.mark.parametrize(
    ("event", "fields", "sentence"),
    [
        ("keepers_changed", {"keepers": 2, "reason": "grown"}, "Job abababab is kept by 2 nodes now: more nodes can"),
        (
            "bootstrap_unreachable",
            {"address": "/ip4/192.0.2.1/tcp/1", "reason": "…6vwmW7B belongs to the network 'swarm'"},
            "No connection to bootstrap /ip4/192.0.2.1/tcp/1 (try 2): …6vwmW7B belongs to the network 'swarm'",
        ),
    ],
)
def test_the_log_has_no_words_of_the_protocol(event: str, fields: dict[str, str | int], sentence: str) -> None:
    diary = Diary()
    narrate.tell(diary, Notify(event, {**FIELDS, **fields}))
    (line,) = diary.lines
    assert line.text == sentence


def test_numbers_agree_with_their_words() -> None:
    assert [many(count, "peer") for count in (0, 1, 2)] == ["0 peers", "1 peer", "2 peers"]


def test_offences_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many keys an attacker makes; the latest offenders and their latest reasons stay."""
    monkeypatch.setattr(offenders, "PEERS_KEPT", 3)
    known = Offenders()
    for number in range(10):
        known.note(PeerId(f"peer{number}"), f"reason {number}", number)
    for number in range(20):
        known.note(PeerId("peer7"), f"again {number}", number)
    assert known.all() == ("peer8", "peer9", "peer7")
    assert known.of(PeerId("peer7")).violations == 21
    assert [reason for _, reason in known.of(PeerId("peer7")).reasons][-1] == "again 19"
    assert len(known.of(PeerId("peer7")).reasons) == offenders.REASONS_KEPT
    assert known.of(PeerId("peer0")).violations == 0
    assert known.total == 23


def test_what_is_weaker_follows_from_how_many_peers_there_are() -> None:
    """One: nobody else keeps a job. Two and three: only the submitter accepts. From four on: certificates."""
    codes = [narrate.safety(peers).code for peers in (1, 2, 3, 4, 5, 100)]
    assert codes == ["alone", "submitter_only", "submitter_only", "certified", "certified", "certified"]
    assert "closing it stops them" in narrate.safety(1).sentence
    assert "With 3 nodes, this one included, only the submitter accepts" in narrate.safety(3).sentence
    assert narrate.safety(7).peers == 7
    for peers in (2, 7):
        assert "No worker is known here by its work yet" in narrate.safety(peers).sentence
        assert "Only one worker is known" in narrate.safety(peers, 1).sentence
        assert "known" not in narrate.safety(peers, 2).sentence
