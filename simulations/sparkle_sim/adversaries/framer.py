"""``framer``: gives a wrong result, the same as all of its entry, where it thinks that somebody else has answered.

So it accuses honest workers, at the rate: a unit that is far from the newest it was given is an audit, or a second
answer at least.

What stops it: nobody is convicted by one worker's word, however well that is known. Others are asked, by lot, until
three more agree than differ; then it is the framer that is convicted.
"""

from typing import ClassVar

from sparkle_protocol.facts import JobSpec
from sparkle_protocol.ids import JobId
from sparkle_sim.adversaries.base import Adversary, happens, wrong_result
from sparkle_sim.computing import Behaviour, result_size, true_result

FAR = 8  # units before the newest
MOST_JOBS = 256


class Framer(Adversary):
    """A false witness."""

    kind: ClassVar[str] = "framer"

    def behaviour(self) -> Behaviour:
        """Wrong where it is not the first."""
        return _Second(self)


class _Second:
    def __init__(self, framer: Framer) -> None:
        self._framer = framer
        self._newest: dict[JobId, int] = {}

    def result(self, spec: JobSpec, job: JobId, unit: int) -> bytes | None:
        """Right for units that seem to be new."""
        group, newest = self._framer.group, self._newest.get(job, 0)
        self._newest[job] = max(newest, unit)
        if len(self._newest) > MOST_JOBS:
            del self._newest[next(iter(self._newest))]
        if unit < newest - FAR and happens(group.rate, group.salt, job, unit.to_bytes(4, "big")):
            return wrong_result(group.salt, spec, job, unit)
        return true_result(job, unit, result_size(spec))
