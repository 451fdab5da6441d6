"""What an audit can still check of jobs that were closed: see ``closing.py``.

Their proofs are gone. That executions were accepted is what this node found while it had them, and the audit says for
how many entries it has nothing but that. What can be seen without proofs is checked:

- the spec is signed, and is what the closing says;
- each entry that the closing names is here, and moved what its executions cost, from a Hold that counts and covers
  them;
- all entries that count name no execution twice, no unit more often than the spec allows, and of the closing's own
  no more executions than were accepted then. An entry that the closing does not name needs a proof that is here.

Where proofs were kept, or came again, they are looked at like those of any other job.

Of a job that is shut (``folding.py``) some entries are sums only, and its spec is gone. What is checked is that no
more was paid than what was accepted then cost, and that entries which count are those that the closing names.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from sparkle_ledger import outcomes as out
from sparkle_ledger.book import Book
from sparkle_ledger.chains import Findings
from sparkle_ledger.closing import Closing, Final
from sparkle_ledger.entries import EntryId, Hold, Work
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import FactCodec, JobSpec
from sparkle_protocol.ids import key_from_peer_id

Claims = Mapping[bytes, Iterable[int]]  # worker -> unit and epoch of what entries that count name, packed


def packed(unit: int, epoch: int) -> int:
    """Both as one number."""
    return unit << 32 | epoch


class Settled(NamedTuple):
    """How many executions of a job are payable, and how many of them an entry here settles."""

    payable: int
    paid: int


class ClosedJobs:
    """Give it closings with ``take`` before the book gets anything else, and ask for ``settled`` at the end."""

    def __init__(self, codec: FactCodec, book: Book, violations: Findings) -> None:
        self._codec = codec
        self._book = book
        self._violations = violations
        self._specs: dict[bytes, JobSpec] = {}
        self._shut: set[bytes] = set()
        self._jobs = self._entries = 0  # that rest on what was found when they were closed

    def __contains__(self, job: bytes) -> bool:
        return job in self._specs or job in self._shut

    def take(self, closing: Closing) -> None:
        """Let the book know it, unless it is not in itself right."""
        if closing.is_shut:
            fault = self._fault_of_shut(closing)
            if fault is None:
                self._shut.add(closing.job)
                self._book.add_closing(closing)
            else:
                self._violations.add(f"what is kept of shut {_name(closing)} is wrong: {fault}", "closing_invalid")
            return
        try:
            fault = self._fault(closing)
        except RemoteProtocolError as error:
            fault = f"its spec is not valid: {error}"
        if fault is not None:
            self._violations.add(f"what is kept of closed {_name(closing)} is wrong: {fault}", "closing_invalid")
        else:
            self._book.add_closing(closing)

    def _fault(self, closing: Closing) -> str | None:
        fact = self._codec.open(closing.spec)
        spec = fact.payload
        if type(spec) is not JobSpec or fact.job != closing.job:
            return "its spec is that of another job"
        if (key_from_peer_id(fact.author), spec.price_micro) != (closing.submitter, closing.price_micro):
            return "its spec says another submitter or price"
        if not 0 <= closing.executions <= spec.units * spec.policy.max_replicas:
            return f"{closing.executions} executions are more than its spec allows"
        fault = self._fault_of_finals(closing)
        if fault is None:
            self._specs[closing.job] = spec
        return fault

    def _fault_of_finals(self, closing: Closing) -> str | None:
        if closing.job in self or len({one.id for one in closing.finals}) < len(closing.finals):
            return "it is there twice, or names an entry twice"
        for one in closing.finals:
            outcome = out.BY_CODE.get(one.code, out.GAP)
            if outcome.pending or not outcome.placed:
                return f"'{one.code[:40]}' is no final outcome"
        return None

    def _fault_of_shut(self, closing: Closing) -> str | None:
        paid = [one.micro for one in closing.paid or ()]
        if closing.spec or min(closing.executions, closing.price_micro, *paid) < 0:
            return "it has a spec, or a number below 0"
        return self._fault_of_finals(closing)

    def settled(self, closing: Closing, claims: Claims) -> Settled:
        """Hold what was paid for a job against all that is known of it."""
        if closing.is_shut:
            return self._settled_in_shut(closing, claims)
        record = self._book.record(closing.job)
        shown = {(one.worker, packed(one.unit, one.epoch)) for one in record.all_payable()} if record else set()
        final = self._finals(closing, shown if record else None)
        if len(final) > closing.executions:
            text = f"{len(final)} executions of {_name(closing)} are paid for, {closing.executions} were accepted"
            self._violations.add(text, "overpaid")
        paid = set[tuple[bytes, int]]()
        for worker, ones in claims.items():
            for one in ones:
                what = f"unit {one >> 32} of {_name(closing)} by {worker.hex()[:12]}"
                if (worker, one) in paid:
                    self._violations.add(f"{what} is settled twice", "settled_twice")
                elif (worker, one) not in final and (worker, one) not in shown:
                    self._violations.add(f"{what} is paid for, and nothing here proves that it was done", "unproven")
                paid.add((worker, one))
        most = self._specs[closing.job].policy.max_replicas
        for unit, times in Counter(one >> 32 for _, one in paid).items():
            if times > most:
                text = (
                    f"unit {unit} of {_name(closing)} is paid for {times} times, and {most} times at most are agreed"
                )
                self._violations.add(text, "overpaid")
        agreed = sum(min(most, times) for times in Counter(one >> 32 for _, one in shown | paid).values())
        return Settled(max(closing.executions, agreed) if record else closing.executions, len(paid))

    def _settled_in_shut(self, closing: Closing, claims: Claims) -> Settled:
        final = self._finals(closing, None)
        folded = sum(one.micro for one in closing.paid or ())
        price = closing.price_micro
        if folded + price * len(final) > price * closing.executions:
            self._violations.add(f"more was paid for {_name(closing)} than what was accepted cost", "overpaid")
        paid = {(worker, one) for worker, ones in claims.items() for one in ones}
        for worker, one in sorted(paid - final):
            what = f"unit {one >> 32} of {_name(closing)} by {worker.hex()[:12]}"
            self._violations.add(f"{what} is paid for, and nothing here proves that it was done", "unproven")
        settled = folded // price + len(paid) if price else closing.executions
        return Settled(closing.executions, settled)

    def unseen(self) -> Iterator[str]:
        """What nobody can see any more, in one sentence."""
        if self._entries:
            jobs = "1 job" if self._jobs == 1 else f"{self._jobs} jobs"
            entries = "1 entry" if self._entries == 1 else f"{self._entries} entries"
            yield f"what became of {entries} rests on what this node found when it closed {jobs}: the proofs are gone"

    def _finals(self, closing: Closing, shown: set[tuple[bytes, int]] | None) -> set[tuple[bytes, int]]:
        """The executions of the closing's entries that count. ``shown``: what is proven again, None if nothing is."""
        found = set[tuple[bytes, int]]()
        unproven = 0
        for one in closing.finals:
            work = self._work(closing, one)
            if work is None:
                continue
            executions = {(work.worker, packed(each.unit, each.epoch)) for each in work.units}
            counts = one.code == out.BOOKED.code
            unproven += closing.executions > 0 if shown is None else counts and not executions <= shown
            if counts:
                found |= executions
        self._entries += unproven
        self._jobs += unproven > 0
        return found

    def _work(self, closing: Closing, one: Final) -> Work | None:
        """An entry that the closing names."""
        entry = self._book.entry(one.entry)
        name = f"entry {one.id.hex()[:12]}, which was settled when {_name(closing)} was closed,"
        if entry is None:
            self._violations.add(f"{name} is not here, or what it follows is not", "final_lost")
            return None
        work = entry.payload
        if not isinstance(work, Work) or work.job != closing.job:
            self._violations.add(f"{name} is no work on it", "final_wrong")
            return None
        fault = self._unpayable(closing, work) if one.code == out.BOOKED.code else None
        cost = closing.price_micro * len(work.units) if one.code == out.BOOKED.code else 0
        if one.moved != cost:
            fault = f"moved {one.moved} micro-credits instead of {cost}"
        if fault is not None:
            self._violations.add(f"{name} {fault}", "final_wrong")
        return work

    def _unpayable(self, closing: Closing, work: Work) -> str | None:
        """What there is against an entry that counts, whatever was proven."""
        if work.worker == closing.submitter:
            return "pays the job's submitter"
        if closing.is_shut:  # its price is looked at with what moved
            return None
        spec = self._specs[closing.job]
        if max(one.unit for one in work.units) >= spec.units:
            return "names a unit that the job does not have"
        if work.amount_micro != closing.price_micro * len(work.units):
            return "states an amount that is not the price of its executions"
        entry, outcome = self._book.entry(EntryId(work.hold)), self._book.outcome(EntryId(work.hold))
        hold = entry.payload if entry is not None else None
        if not isinstance(hold, Hold) or entry is None or (entry.account, hold.job) != (work.payer, closing.job):
            return "is paid from a hold that is not here"
        if outcome is None or not outcome.counts or hold.amount_micro < _cover_micro(spec):
            return "is paid from a hold that does not count, or does not cover the job"
        return None


def _name(closing: Closing) -> str:
    return f"job {closing.job.hex()[:12]}"


def _cover_micro(spec: JobSpec) -> int:
    return spec.price_micro * spec.units * spec.policy.max_replicas
