"""A job's story: like things told as one, in true order, bounded whatever happens, the same after a restart."""

from random import Random

import pytest

from sparkle_p2p.node.journal import MAX_ENTRIES, MERGE_GAP_MS, RANKS, Entry, Journal, milestone
from sparkle_p2p.node.journal_words import _WORDS, reason_of, seconds, timeline

A, B = "12D3KooWHrTvH4VQ24pGBZYPKnk61sCSgzFDGEy3FbFGezvmwW7B", "12D3KooWQnZ8yLwxbJrS7cVtpM2aKdE5fGhUu3Xo9TqRk3Xy8Qp2"
SECOND = 1000
NOON = 1_790_000_000_000


def told(journal: Journal) -> list[str]:
    return [moment.reason.sentence for moment in timeline(journal.entries)]


def test_what_happens_again_soon_to_the_same_peer_is_one_line() -> None:
    journal = Journal()
    journal.add("job_submitted", NOON, kernel="primes", units=1000)
    for second in range(30):
        journal.add("lease_expired", NOON + second * SECOND, peer=A, unit=second, kind="lease")
        journal.add("lease_expired", NOON + second * SECOND, peer=B, unit=second, kind="lease")
    assert told(journal) == [
        "Submitted: primes in 1000 units.",
        "…ezvmwW7B lost 30 leases: not finished in time, others get the units.",
        "…k3Xy8Qp2 lost 30 leases: not finished in time, others get the units.",
    ]
    (_, first, _) = timeline(journal.entries)
    assert (first.time, first.until) == (NOON / 1000, NOON / 1000 + 29)


def test_a_pause_a_landmark_or_a_restart_begins_a_new_line() -> None:
    journal = Journal()
    for between in (None, "milestone", "node_back"):
        journal.add("lease_expired", NOON, peer=A)
        if between:
            journal.add(between, NOON, percent=10, accepted=1, total=10)
    journal.add("lease_expired", NOON, peer=A)
    journal.add("lease_expired", NOON + MERGE_GAP_MS + 1, peer=A)
    kinds = [(entry.kind, entry.count) for entry in journal.entries]
    assert kinds == [
        ("lease_expired", 2), ("milestone", 1), ("lease_expired", 1), ("node_back", 1), ("lease_expired", 1),
        ("lease_expired", 1),
    ]  # fmt: skip


def test_leases_of_a_lost_worker_belong_to_its_loss() -> None:
    journal = Journal()
    journal.add("worker_lost", NOON, peer=A, units=3)
    for _ in range(3):
        journal.add("lease_expired", NOON + 5 * SECOND, peer=A, unit=1, kind="lease")
    journal.add("worker_back", NOON + 9 * SECOND, peer=A)
    assert told(journal) == [
        "Worker …ezvmwW7B lost with 3 units in hand; 3 went to others.",
        "Worker …ezvmwW7B is back.",
    ]
    assert journal.leases_lost(A) == 3


def test_a_worker_that_comes_and_goes_is_two_lines() -> None:
    journal = Journal()
    for second in range(100):
        journal.add("worker_lost" if second % 2 else "worker_back", NOON + second * SECOND, peer=A, units=1)
    assert told(journal) == [
        "Worker …ezvmwW7B is back 50 times.",
        "Worker …ezvmwW7B lost 50 times with 50 units in hand.",
    ]


def test_restarts_of_one_manner_in_a_row_are_one_line() -> None:
    """A service that is restarted again and again does not fill the story; single restarts are told one by one."""
    journal = Journal()
    for second in range(0, 900, 10):
        journal.add("node_back", NOON + second * SECOND, away_s=3, clean=False)
    journal.add("node_stopped", NOON + 1000 * SECOND)
    journal.add("node_back", NOON + 1060 * SECOND, away_s=60, clean=True)
    assert told(journal) == [
        "This node restarted 90 times, away for 4 min 30 s altogether.",
        "This node was stopped.",
        "This node is back after 1 min 00 s.",
    ]


def test_an_unknown_kind_is_no_news() -> None:
    journal = Journal()
    journal.add("unit_final", NOON)
    assert journal.clean


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_the_journal_is_bounded_and_keeps_its_landmarks(seed: int) -> None:
    """Thousands of events of every kind by hundreds of peers over days; and the disk holds the same in the end."""
    draw, journal, now = Random(seed), Journal(), NOON
    disk: dict[int, Entry] = {}
    journal.add("job_submitted", now, kernel="primes", units=7)
    landmarks = ["job_submitted"]
    details = sorted(kind for kind in RANKS if RANKS[kind] < 2)
    for step in range(5000):
        now += draw.choice([10, SECOND, 400 * SECOND])
        if step in (100, 2000, 4000):
            journal.add("milestone", now, percent=25, accepted=1, total=4)
            landmarks.append("milestone")
        peer = f"12D3KooW{draw.randrange(300):044}"
        journal.add(draw.choice(details), now, peer=peer, units=2, away_s=3, reason="some reason", evidence="e" * 999)
        assert len(journal.entries) <= MAX_ENTRIES
        if draw.random() < 0.01:
            changed, gone = journal.changes()
            disk.update({entry.number: entry for entry in changed})
            for number in gone:
                disk.pop(number, None)
            journal.saved(changed, gone, as_of=changed)
            assert journal.clean
            assert sorted(disk) == [entry.number for entry in journal.entries]
    assert [entry.kind for entry in journal.entries if RANKS[entry.kind] == 2] == landmarks
    recent = journal.entries[-MAX_ENTRIES // 4 :]
    assert all(entry.count < 20 for entry in recent)  # what is old was thinned, not what is new
    assert max(len(sentence) for sentence in told(journal)) < 500


def test_what_changes_while_it_is_written_is_written_again() -> None:
    journal = Journal()
    journal.add("worker_lost", NOON, peer=A, units=1)
    changed, gone = journal.changes()
    as_of = [Entry(changed[0].number, "worker_lost", NOON, NOON, A, 1, {"units": 1})]
    journal.add("worker_lost", NOON + 1, peer=A, units=1)
    journal.saved(changed, gone, as_of=as_of)
    assert not journal.clean
    assert journal.changes()[0][0].count == 2


def test_entries_of_an_earlier_run_and_of_this_one_make_one_story() -> None:
    """Also when this run's were written before the earlier ones were read, and the clock was set back."""
    first, later = Journal(), Journal()
    first.add("job_submitted", NOON, kernel="primes", units=7)
    first.add("job_failed", NOON + SECOND, error="out of luck")
    later.add("units_requeued", NOON + 9 * SECOND, units=1)
    later.add("job_done", NOON + 8 * SECOND)
    later.absorb(first.entries)
    assert [entry.kind for entry in later.entries] == ["job_submitted", "job_failed", "units_requeued", "job_done"]


@pytest.mark.parametrize("kind", sorted(RANKS))
def test_every_kind_has_a_sentence_with_and_without_a_peer(kind: str) -> None:
    notes = {
        "kernel": "primes", "units": 5, "keepers": 8, "holding": 6, "view": 3, "reason": "a keeper left", "ranges": 2,
        "percent": 25, "accepted": 5, "total": 20, "evidence": "it lied", "unit": 3, "error": "no luck", "away_s": 75,
    }  # fmt: skip
    assert kind in _WORDS
    for peer in ("", A):
        for count in (1, 2, 9):
            sentence = reason_of(Entry(1, kind, NOON, NOON, peer, count, dict(notes))).sentence
            assert sentence.endswith(".")
            assert ".." not in sentence
            assert "  " not in sentence
            assert A not in sentence
            assert sentence[0].isupper() or sentence[0] in "…0123456789s"
    assert reason_of(Entry(1, kind, NOON, NOON)).sentence.endswith(".")


def test_milestones_come_once_and_only_the_highest() -> None:
    assert [milestone(0, accepted, 100) for accepted in (9, 10, 26, 99)] == [None, 10, 25, 90]
    assert milestone(25, 49, 100) is None
    assert milestone(25, 80, 100) == 75
    assert milestone(75, 100, 100) is None  # that is "done"


@pytest.mark.parametrize(
    ("value", "text"), [(0.4, "0 s"), (59.4, "59 s"), (125, "2 min 05 s"), (11_400, "3 h 10 min")]
)
def test_stretches_of_time(value: float, text: str) -> None:
    assert seconds(value) == text
