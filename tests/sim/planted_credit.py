"""Errors planted into the ledger, its agent and its rules, one at a time, for the checkers of credit to find."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest
from msgspec.structs import replace

from sparkle_ledger import rulings
from sparkle_ledger.agent import forks as agent_forks
from sparkle_ledger.agent.claims import Claims
from sparkle_ledger.agent.desk import Desk
from sparkle_ledger.agent.forks import Forks
from sparkle_ledger.agent.own import OwnAccount
from sparkle_ledger.agent.partners import Partners
from sparkle_ledger.book import Book
from sparkle_ledger.entries import AccountId, Release, Settled
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.money import Money
from sparkle_ledger.rulings import Ruling, Rulings
from sparkle_protocol import effects as fx

Plant = Callable[[pytest.MonkeyPatch], None]


def pays_out_of_nothing(patch: pytest.MonkeyPatch) -> None:
    """What a worker gets is not taken out of the escrow."""
    pay = Money.pay

    def generous(self: Money, payer: AccountId, job: bytes, worker: AccountId, amount: int) -> None:
        pay(self, payer, job, worker, amount)
        self.escrow(job, payer).paid_micro -= amount

    patch.setattr(Money, "pay", generous)


def releases_what_is_owed(patch: pytest.MonkeyPatch) -> None:
    """A submitter takes all of an escrow back, and the rules let it."""

    def rule(self: Rulings, page: Any, node: Any, release: Release) -> Ruling:
        return Ruling(rulings.out.BOOKED, release.amount_micro, release.amount_micro, release.amount_micro)

    def take_all(self: OwnAccount, record: JobRecord) -> None:
        self._desk.take_record(record, record.ranges())
        self.sign(Release(record.job, self._desk.book.escrow(record.job).held_micro))

    patch.setattr(Rulings, "_rule_release", rule)
    patch.setattr(OwnAccount, "_release", take_all)
    rules = Rulings.__init__

    def begin(self: Rulings, *arguments: Any) -> None:
        rules(self, *arguments)
        self._rules[Release] = self._rule_release

    patch.setattr(Rulings, "__init__", begin)


def bears_anything(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks at limits."""
    patch.setattr(Rulings, "_slack", lambda *_: None)
    patch.setattr(OwnAccount, "_why_not", lambda *_: None)


def skips_the_hold(patch: pytest.MonkeyPatch) -> None:
    """A job is handed out though nothing is set aside for it."""
    patch.setattr(OwnAccount, "_fund", lambda self, spec: self._desk.do(fx.JobFunded(spec.job)))


def claims_twice(patch: pytest.MonkeyPatch) -> None:
    """Each execution is claimed again, and the rules do not mind."""

    def forgetful(self: Book, worker: bytes, record: JobRecord) -> list[Settled]:
        page = self._jobs.get(record.job)
        claims = page.claims.get(worker, {}) if page is not None else {}
        mine = [one for one in record.all_payable() if one.worker == worker]
        return [Settled(one.unit, one.epoch) for one in mine if len(claims.get((one.unit, one.epoch), ())) < 2]

    patch.setattr(Book, "payable", forgetful)
    patch.setattr(Rulings, "_is_claimed", lambda *_: False)


def claims_nothing(patch: pytest.MonkeyPatch) -> None:
    """A worker does not claim."""
    patch.setattr(Claims, "_sign", lambda *_: None)


def claims_what_was_refused(patch: pytest.MonkeyPatch) -> None:
    """One keeper's word is enough for pay, and workers say that they did what they did not."""
    payable = JobRecord.all_payable

    def one_more(self: JobRecord) -> Iterable[Any]:
        found = list(payable(self))
        yield from found
        yield from {one._replace(unit=(one.unit + 1) % self.units) for one in found} - set(found)

    patch.setattr(JobRecord, "all_payable", one_more)
    patch.setattr(Rulings, "_check_claim", lambda *_: None)


def forgets_claims_on_restart(patch: pytest.MonkeyPatch) -> None:
    """A worker that was killed knows nothing of what it is owed."""
    patch.setattr(Claims, "restore", lambda *_: None)


def tells_no_witness(patch: pytest.MonkeyPatch) -> None:
    """Witnesses are asked what they know, and told nothing."""
    turn = Partners._turn

    def silent(self: Partners, peer: Any, partner: Any) -> None:
        if partner.asked and partner.head != self._desk.kept_head(self._desk.account):
            partner.due_ns = self._desk.now_ns + 600_000_000_000
        else:
            turn(self, peer, partner)

    patch.setattr(Partners, "_turn", silent)


def keeps_no_evidence(patch: pytest.MonkeyPatch) -> None:
    """What proves that work was accepted is not kept."""

    def lose(self: Desk, record: JobRecord, ranges: Collection[int]) -> None:
        self.book.add_record(record)

    patch.setattr(Desk, "take_record", lose)


def signs_without_asking(patch: pytest.MonkeyPatch) -> None:
    """A node signs from where its file ends, and believes no witness that there was more."""
    patch.setattr(OwnAccount, "_has_asked", lambda *_: True)
    patch.setattr(Partners, "_is_ours", lambda *_: True)


def believes_accusers(patch: pytest.MonkeyPatch) -> None:
    """Two entries of any key prove a fork of the account that they name."""
    patch.setattr(Forks, "_take", lambda self, proof, tell: self._keep(proof, tell=tell))


def forgets_what_was_final(patch: pytest.MonkeyPatch) -> None:
    """After a restart nothing is known of what became of the Works of closed jobs."""
    add_closing = Book.add_closing
    patch.setattr(Book, "add_closing", lambda self, closing: add_closing(self, replace(closing, finals=[])))


def remembers_all_forks(patch: pytest.MonkeyPatch) -> None:
    """However many accounts fork, all are remembered."""
    patch.setattr(agent_forks, "MAX_KNOWN", 1 << 30)
