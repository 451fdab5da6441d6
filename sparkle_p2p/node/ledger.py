"""This node's part in the ledger of its network: the agent, its file, and what jobs of ours have to do with both.

- A job with a price is submitted once its ``Hold`` is durable. A hold whose job was not submitted after all (nobody
  waited any more, or the disk failed) is taken back: the submitter states that the job is cancelled.
- What a job that has ended has set aside and owes nobody is taken back as soon as that is certain, which may be when
  its keepers have signed; until then it is looked at again, later and later.
- While the file cannot be written nothing of the agent's is told to anybody; it asks to have it kept again.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparkle_ledger.agent.core import LedgerAgent
from sparkle_ledger.agent.done import say_done
from sparkle_ledger.agent.events import Accepted, Fund, Over, WorkEnded
from sparkle_ledger.agent.own import State
from sparkle_ledger.book import Book
from sparkle_ledger.entries import Hold, account_of
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.genesis import GenesisRecord
from sparkle_p2p.node.ledger_disk import LEDGER_FILE, LedgerDisk
from sparkle_p2p.node.store import StoreError
from sparkle_p2p.runtime.clock import boot_ns, wall_ms
from sparkle_protocol import effects as fx
from sparkle_protocol.errors import ConfigError, LedgerError, SparkleError
from sparkle_protocol.facts import Cancel, FactCodec, JobSpec
from sparkle_protocol.ids import JobId

if TYPE_CHECKING:
    from sparkle_p2p.home import HomeDir
    from sparkle_protocol.work.kept_job import KeptJob
    from sparkle_protocol.work.submitter import Submitter

log = logging.getLogger("sparkle.node")

RECORDS = 4  # jobs of which one is kept ready
MAX_EARLY = 4096
FUND_S = 45.0  # longer than a node that is alone waits before it signs
AGAIN_S, MAX_AGAIN_S = 4.0, 600.0  # between two looks at what a job that has ended still owes
SECOND_NS = 1_000_000_000

Spawn = Callable[[Coroutine[Any, Any, None], str], object]


@dataclass(slots=True)
class _Ended:
    """A job of ours that is over, with something left in its escrow."""

    due_ns: int
    pause_s: float = AGAIN_S


class LedgerPart:
    """The ledger in a node.

    Args:
        home: where the file is, and whose account this is.
        genesis: the record of the network.
        submitter: has the jobs of this node and those that it keeps.
        tell: gives the agent an event, once the node has started.
        notify: tells people that the disk fails, or works again.
        spawn: runs something in the background.
    """

    def __init__(
        self,
        home: "HomeDir",
        genesis: GenesisRecord,
        submitter: "Submitter",
        tell: Callable[[LedgerAgent, object], None],
        notify: Callable[[fx.Notify], None],
        spawn: Spawn,
    ) -> None:
        net = genesis.network
        self.store = LedgerDisk(home.path / LEDGER_FILE, genesis)
        self.account = account_of(net, home.identity.public_key)
        self.changes = 0  # how often something was kept
        self._home = home
        self._facts = FactCodec(net)
        self._submitter = submitter
        self._tell = tell
        self._notify = notify
        self._spawn = spawn
        self._agent: LedgerAgent | None = None
        self._funding: dict[JobId, asyncio.Future[str | None]] = {}
        self._records: dict[JobId, JobRecord] = {}
        self._ended: dict[JobId, _Ended] = {}
        self.failure: StoreError | None = None  # why nothing could be kept lately
        self._unkept: fx.KeepLedger | None = None  # what that was
        self._loaded = asyncio.Event()
        self._early: list[object] = []  # events before that; who was missed is heard of again

    # --- life ---------------------------------------------------------------------------------------------

    async def load(self, met: bool = True) -> None:
        """Read the file and go on with what an earlier life left; to be begun once the node's jobs are restored.

        The network may start meanwhile. ``met``: this node has met others before, or was told of some.

        Raises:
            ConfigError: the file cannot be used.
        """
        loaded = await self.store.load()
        new = self._home.is_new and not loaded.book.account(self.account).entries
        self._agent = LedgerAgent(
            self._home.identity, loaded.book, self._facts, wall_ms, self._kept_record, loaded.forks, new=new, met=met
        )
        self.tell(fx.Tick())
        early, self._early = self._early, []
        for event in early:
            self.tell(event)
        self._loaded.set()
        self._go_on(boot_ns())

    def _go_on(self, now_ns: int) -> None:
        """See what holds of ours are left, and of which jobs."""
        jobs = self._submitter.jobs
        for entry in [*self.book.entries(self.account)]:
            if isinstance(entry.payload, Hold) and self.book.escrow(entry.payload.job).balance_micro > 0:
                job = JobId(entry.payload.job)
                if job not in jobs:
                    self._give_back(job)
                elif jobs[job].outcome:
                    self._ended[job] = _Ended(now_ns)

    def stop(self) -> None:
        """Let nobody wait for a hold that this process will not see; it is taken back after a restart."""
        for answer in self._funding.values():
            if not answer.done():
                answer.set_exception(ConfigError("this node is stopping; submit the job when it is back"))

    async def close(self) -> None:
        """Close the file."""
        await self.store.close()

    # --- what it is ---------------------------------------------------------------------------------------

    @property
    def agent(self) -> LedgerAgent:
        """The agent of a node that has loaded its ledger."""
        if self._agent is None:
            raise ConfigError("the node still reads its ledger; try again in a moment")
        return self._agent

    @property
    def loaded(self) -> bool:
        """There is an agent."""
        return self._agent is not None

    async def wait_loaded(self) -> None:
        """Return once there is."""
        await self._loaded.wait()

    @property
    def book(self) -> Book:
        """What is known of all accounts."""
        return self.agent.book

    @property
    def balance_micro(self) -> int:
        """Of our own account."""
        return self.book.money.seen(self.account).balance if self._agent is not None else 0

    # --- events and effects -------------------------------------------------------------------------------

    def tell(self, event: object) -> None:
        """Give the agent an event, now or once there is one."""
        if self._agent is not None:
            self._tell(self._agent, event)
        elif len(self._early) < MAX_EARLY:
            self._early.append(event)

    def perform(self, effect: fx.Effect) -> None:
        """Effects that concern the ledger; all others are not for here."""
        if isinstance(effect, fx.KeepLedger):
            self._spawn(self._keep(effect), "keep the ledger")
        elif isinstance(effect, fx.ReadEvidence):
            self._spawn(self._read(effect), "read the ledger")
        elif isinstance(effect, fx.JobFunded):
            self._funded(effect)
        elif isinstance(effect, fx.Earned):
            self.tell(Accepted(effect.spec, effect.units, effect.keepers, effect.views))
        elif isinstance(effect, fx.WorkOver):
            self.tell(WorkEnded(effect.job, effect.ranges))

    async def _keep(self, effect: fx.KeepLedger) -> None:
        failure: str | None = None
        try:
            await self.store.keep(effect)
        except LedgerError as error:
            failure = str(error)
        except Exception:  # a bug of ours; the agent tries again, and tells nobody of what is not kept
            log.exception("keeping the ledger failed")
            failure = f"{self.store.path} could not be written; the log has the details"
        self.changes += failure is None
        if (self.failure is None) != (failure is None):
            self._notify(
                fx.Notify("storage_failed", {"reason": failure}) if failure else fx.Notify("storage_restored", {})
            )
        self.failure = StoreError(failure) if failure else None
        self._unkept = effect if failure else None
        for answer in self._funding.values() if failure else ():
            if not answer.done():
                answer.set_exception(StoreError(f"nothing can be set aside for this job: {failure}"))
        self.tell(fx.LedgerKept(effect.tag, failure))

    async def _read(self, effect: fx.ReadEvidence) -> None:
        found = None
        try:
            found = await self.store.evidence_of(effect.job)
        except LedgerError as error:
            log.warning("evidence about job %s cannot be read: %s", effect.job.hex()[:12], error)
        except Exception:  # a bug of ours; whoever asked is told that nothing is known
            log.exception("reading evidence about job %s failed", effect.job.hex()[:12])
        facts, sealed = (found.facts, found.sealed) if found is not None else ([], [])
        self.tell(fx.EvidenceRead(effect.tag, tuple(facts), tuple(sealed)))

    def _kept_record(self, job: JobId) -> JobRecord | None:
        """The evidence about a job that this node keeps or submitted."""
        known = self._submitter.job(job)
        return self._record_of(known) if known is not None else None

    def _record_of(self, job: "KeptJob") -> JobRecord:
        """What is known of a job by now: facts that were taken in before are only looked up again."""
        state = job.state
        record = self._records.pop(state.id, None) or JobRecord(state.spec_fact, state.network)
        record.add_all(state.facts())
        for sealed in state.sealed.ranges():
            try:
                record.add_sealed(sealed)
            except SparkleError as error:
                log.warning("a range of job %s is left out of its record: %s", state.id.hex()[:12], error)
        say_done(record, job, self._facts, self._home.identity)
        self._records[state.id] = record  # the latest last
        while len(self._records) > RECORDS:
            del self._records[next(iter(self._records))]
        return record

    # --- jobs of ours -------------------------------------------------------------------------------------

    async def fund(self, spec: JobSpec) -> None:
        """Return once what a job may cost is set aside.

        Raises:
            ConfigError: it cannot be; one sentence.
            StoreError: that could not be written.
        """
        if not spec.price_micro:
            return
        if self._unkept is not None:  # perhaps the disk works again
            await self._keep(self._unkept)
        if self.failure is not None:
            raise StoreError(f"nothing can be set aside for this job: {self.failure}")
        fact = self._submitter.seal(spec)
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._funding[fact.job] = answer
        self.tell(Fund(fact))
        try:
            async with asyncio.timeout(FUND_S):
                refused = await asyncio.shield(answer)
        except TimeoutError:
            raise ConfigError(
                f"nothing could be set aside for this job within {FUND_S:.0f} s, as this node {self._busy_with()}; "
                "try again in a moment, or submit it with --free"
            ) from None
        except asyncio.CancelledError:  # whoever submitted has gone
            if answer.done() and answer.exception() is None and answer.result() is None:
                self._give_back(fact.job)
            raise
        finally:
            del self._funding[fact.job]
        if refused is not None:
            raise ConfigError(refused)

    def _busy_with(self) -> str:
        if self._agent is None:
            return "still reads its ledger"
        if self._agent.state is State.LEARNING:
            return "still asks others for the state of its account"
        return "could not write to its disk"

    def _funded(self, effect: fx.JobFunded) -> None:
        answer = self._funding.get(effect.job)
        if answer is not None and not answer.done():
            answer.set_result(effect.refused)
        elif effect.refused is None and effect.job not in self._submitter.jobs:
            self._give_back(effect.job)

    def withdrawn(self, spec: JobSpec) -> None:
        """A job was not submitted after all."""
        if spec.price_micro:
            self._give_back(self._submitter.seal(spec).job)

    def _give_back(self, job: JobId) -> None:
        """A hold has no job: nobody but us knows its spec, or may from now on begin with it."""
        known = self.book.record(job)
        if known is None:
            return
        record = JobRecord(known.spec_fact, known.network)
        record.add_all(known.counting(()))
        record.add(self._facts.seal(self._home.identity, Cancel(job, "it was not submitted")))
        self.tell(Over(record))

    def ended(self, job: JobId, now_ns: int) -> None:
        """A job of ours may be over."""
        if self._agent is not None and self.book.escrow(job).balance_micro > 0:
            self._ended[job] = _Ended(now_ns)
            self.look(now_ns)

    def look(self, now_ns: int) -> None:
        """Take back what can be by now of jobs that have ended; called every few seconds."""
        for job, ended in list(self._ended.items()):
            kept = self._submitter.jobs.get(job)
            if kept is None or not kept.outcome or self._is_closed(job):
                del self._ended[job]
            elif ended.due_ns <= now_ns:
                ended.due_ns = now_ns + int(ended.pause_s * SECOND_NS)
                ended.pause_s = min(2 * ended.pause_s, MAX_AGAIN_S)
                self.tell(Over(self._record_of(kept)))

    def _is_closed(self, job: JobId) -> bool:
        """What the escrow has left is owed to somebody."""
        record, escrow = self.book.record(job), self.book.escrow(job)
        left = escrow.held_micro - escrow.released_micro
        return escrow.balance_micro <= 0 or (record is not None and record.over and left <= record.owed_micro)
