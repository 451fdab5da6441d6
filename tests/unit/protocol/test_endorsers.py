"""Which keepers a submitter finds to hold up its job, and whom nobody can have taken for such."""

from dataclasses import dataclass, field
from typing import cast

from sparkle_protocol.ids import PeerId, ResultHash
from sparkle_protocol.work.endorsers import PATIENCE_NS, Endorsers
from sparkle_protocol.work.state import JobState
from sparkle_protocol.work.views import View

KEEPERS = tuple(PeerId(f"keeper{number}") for number in range(8))
ME = PeerId("me")
GOOD, BAD = ResultHash(b"g" * 32), ResultHash(b"b" * 32)


@dataclass
class Said:
    """What keepers signed for, by unit."""

    by: dict[int, dict[ResultHash, set[PeerId]]] = field(default_factory=dict)
    final_units: set[int] = field(default_factory=set)

    def epoch(self, unit: int) -> int:
        return 0

    def support(self, unit: int, _epoch: int) -> dict[ResultHash, set[PeerId]]:
        return self.by.get(unit, {})


@dataclass
class Named:
    number: int = 0
    keepers: tuple[PeerId, ...] = KEEPERS


class Watched:
    def __init__(self) -> None:
        self.said = Said()
        self.view = Named()
        self.endorsers = Endorsers()
        self.look(0)

    def endorse(self, unit: int, *numbers: int, result: ResultHash = GOOD) -> None:
        self.said.by.setdefault(unit, {}).setdefault(result, set()).update(KEEPERS[number] for number in numbers)

    def look(self, now_ns: int) -> set[int]:
        state, view = cast("JobState", self.said), cast("View", self.view)
        found = self.endorsers.look(state, view, list(self.said.by), ME, now_ns)
        return {self.view.keepers.index(peer) for peer in found}


def test_who_endorses_nothing_for_a_minute_that_most_do_is_found_once() -> None:
    job = Watched()
    job.endorse(0, 0, 1, 2, 3, 4)
    assert job.look(1) == set()
    assert job.look(PATIENCE_NS) == set()
    assert job.look(PATIENCE_NS + 1) == {5, 6, 7}
    assert job.look(2 * PATIENCE_NS) == set()
    assert job.endorsers.silent == set(KEEPERS[5:])


def test_after_a_long_time_without_results_everybody_has_a_minute() -> None:
    job = Watched()
    assert job.look(100 * PATIENCE_NS) == set()
    job.endorse(0, 0, 1, 2, 3, 4)
    assert job.look(100 * PATIENCE_NS + 1) == set()
    job.endorse(0, 5)
    job.said.final_units.add(0)
    assert job.look(102 * PATIENCE_NS) == set()
    assert job.look(200 * PATIENCE_NS) == set()


def test_while_results_become_final_nobody_is_in_the_way() -> None:
    job = Watched()
    job.endorse(0, 0, 1, 2, 3, 4)
    for minute in range(1, 10):
        job.said.final_units.add(minute)
        assert job.look(minute * PATIENCE_NS) == set()


def test_who_endorsed_some_of_it_only_lacks_something() -> None:
    job = Watched()
    job.endorse(0, 0, 1, 2, 3, 4)
    job.endorse(1, 0, 1, 2, 3, 5)
    job.look(1)
    assert job.look(2 * PATIENCE_NS) == {6, 7}


def test_a_few_that_endorse_what_nobody_else_does_convict_nobody() -> None:
    job = Watched()
    job.endorse(0, 0, 1, 2, 3, result=BAD)
    job.look(1)
    assert job.look(2 * PATIENCE_NS) == set()


def test_others_that_come_to_keep_the_job_have_a_minute_of_their_own() -> None:
    job = Watched()
    job.endorse(0, 0, 1, 2, 3, 4)
    job.look(1)
    job.view = Named(1)
    assert job.look(2 * PATIENCE_NS) == set()
    assert job.look(2 * PATIENCE_NS + 1) == set()
    assert job.look(3 * PATIENCE_NS + 1) == {5, 6, 7}
