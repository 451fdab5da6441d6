"""How a job's first keepers are chosen among those that are known."""

from sparkle_protocol.ids import JobId, PeerId, digest, peer_id_from_key
from sparkle_protocol.work.placement import MAX_JOB_KEEPERS, Candidate, distance
from sparkle_protocol.work.publishing import Publication

JOB = JobId(digest(b"a job"))


def peers(name: str, count: int) -> list[PeerId]:
    return [peer_id_from_key(digest(f"{name}/{number}".encode())) for number in range(count)]


def candidates(known: list[PeerId]) -> list[Candidate]:
    return [Candidate(peer, (f"/ip4/11.0.{n}.7/tcp/4001/p2p/{peer}",)) for n, peer in enumerate(known)]


def asked(known: list[PeerId], *, refusing: int = 0) -> list[PeerId]:
    """Who is asked to keep the job when so many of the first refuse."""
    publication = Publication(JOB, 1, 0)
    publication.choose(candidates(known), 0)
    found = publication.to_ask()
    for tag, peer in enumerate(found[refusing:]):
        publication.asked[tag] = peer
    return [*found, *publication.to_ask()]


def test_whoever_refuses_is_replaced() -> None:
    known = peers("honest", 12)
    assert len(asked(known)) == MAX_JOB_KEEPERS
    assert len(asked(known, refusing=3)) == MAX_JOB_KEEPERS + 3


def test_a_cluster_around_the_job_gets_a_quarter_of_the_places_even_where_few_others_are_known() -> None:
    """Its peers do not come in by the back door, in place of others that there are not or that refuse."""
    cluster = sorted(peers("ground", 5000), key=lambda peer: distance(JOB, peer))[:16]
    for honest in (3, 5, 7):
        for refusing in (0, 2):
            found = asked([*cluster, *peers("honest", honest)], refusing=refusing)
            assert len(set(found) & set(cluster)) <= len(found) // 4
