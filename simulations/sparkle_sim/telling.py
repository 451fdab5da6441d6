"""What the agent is to hear of a node's work: worked out from what its worker and its submitter want done.

- ``Accepted`` without units, as soon as a unit of somebody's job is committed to: from then on the agent remembers
  the job, so that what was accepted is asked for after any crash.
- ``Accepted`` once a commit is let go of, unless it was refused or stated again in a later epoch. That is so when a
  keeper said that the result was accepted, and also when the job was over before anybody said anything: then it may
  have been.
- ``WorkEnded`` once there is nothing more to be said to a job's keepers.
- ``Over`` when a job of ours is, also at the start of a life: the node may have stopped before it took back what was
  owed to nobody.
"""

from collections.abc import Callable, Iterable, Iterator

from sparkle_ledger.agent.events import Accepted, Over, WorkEnded
from sparkle_ledger.evidence import JobRecord
from sparkle_protocol import effects as fx
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.work.state import JobState

ENDED = ("job_done", "job_cancelled", "job_failed")
Execution = tuple[int, int]  # unit and epoch
StateOf = Callable[[JobId], JobState | None]


class Telling:
    """Of one life of a node.

    Args:
        me: its peer.
        worked: what its worker knows of a job.
        owned: what its submitter knows of a job of its own.
    """

    def __init__(self, me: PeerId, worked: StateOf, owned: StateOf) -> None:
        self._me = me
        self._worked = worked
        self._owned = owned
        self._open: dict[JobId, dict[Execution, None]] = {}  # commits of priced jobs of others that we stand by
        self._states: dict[JobId, JobState] = {}  # of these jobs; the worker forgets them before it says so

    def restore(self, commits: Iterable[tuple[JobId, int, int]], own: Iterable[JobId]) -> Iterator[object]:
        """Go on with commits of an earlier life, and with our jobs that were over by then."""
        for job, unit, epoch in commits:
            yield from self._commit(job, (unit, epoch))
        for job in own:
            yield from self._over(job)

    def of_worker(self, effects: fx.Effects) -> Iterator[object]:
        """What follows for the agent from what the worker wants done at once."""
        refused, gone, ended = set[tuple[JobId, int]](), dict[tuple[JobId, Execution], None](), list[JobId]()
        for effect in effects:
            if isinstance(effect, fx.Notify) and effect.event == "result_rejected":
                refused.add((JobId(bytes.fromhex(str(effect.fields["job"]))), int(effect.fields["unit"] or 0)))
            elif isinstance(effect, fx.Notify) and effect.event == "report_refused":
                ended.append(JobId(bytes.fromhex(str(effect.fields["job"]))))
            for record in effect.records if isinstance(effect, fx.Persist) else ():
                if isinstance(record, fx.StoreCommit):
                    yield from self._commit(record.job, (record.unit, record.epoch))
                elif isinstance(record, fx.DropCommit):
                    gone[record.job, (record.unit, record.epoch)] = None
                elif isinstance(record, fx.DropCommits):
                    gone.update(dict.fromkeys((record.job, one) for one in self._open.get(record.job, ())))
                    ended.append(record.job)
        yield from self._let_go(refused, gone)
        for job in ended:
            if self._open.pop(job, None) is not None:
                del self._states[job]
                yield WorkEnded(job)

    def of_submitter(self, effects: fx.Effects) -> Iterator[object]:
        """What follows for the agent from what the submitter wants done at once."""
        for effect in effects:
            if isinstance(effect, fx.Notify) and effect.event in ENDED:
                yield from self._over(JobId(bytes.fromhex(str(effect.fields["job"]))))

    def _commit(self, job: JobId, execution: Execution) -> Iterator[object]:
        known = self._open.get(job)
        if known is not None:
            known[execution] = None
            return
        state = self._worked(job)
        if state is None or state.submitter == self._me or not state.spec.price_micro:
            return
        self._open[job] = {execution: None}
        self._states[job] = state
        yield Accepted(state.spec_fact, (), _keepers(state))

    def _let_go(self, refused: set[tuple[JobId, int]], gone: dict[tuple[JobId, Execution], None]) -> Iterator[object]:
        accepted: dict[JobId, list[Execution]] = {}
        for job, execution in gone:
            open_ = self._open.get(job)
            if open_ is None or execution not in open_:
                continue
            del open_[execution]
            again = any(unit == execution[0] for unit, _ in open_)
            if not again and (job, execution[0]) not in refused:
                accepted.setdefault(job, []).append(execution)
        for job, units in accepted.items():
            state = self._states[job]
            yield Accepted(state.spec_fact, tuple(units), _keepers(state))

    def _over(self, job: JobId) -> Iterator[object]:
        state = self._owned(job)
        if state is not None and state.spec.price_micro:
            yield Over(JobRecord.of(state))


def _keepers(state: JobState) -> tuple[PeerId, ...]:
    return tuple(state.view.keepers) if state.view is not None else ()
