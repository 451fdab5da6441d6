"""What ``sparkle why`` says of credit: what a job has set aside, what a unit earned, how a peer's account stands.

The sums are those of ``sparkle credit``: both are read from the same book.
"""

from sparkle_ledger.book import Book
from sparkle_ledger.entries import account_of
from sparkle_ledger.evidence import Execution
from sparkle_p2p.node.ledger import LedgerPart
from sparkle_p2p.node.ledger_reading import escrow_view
from sparkle_p2p.view import Reason, Scalar
from sparkle_protocol.ids import PeerId, key_from_peer_id, peer_id_from_key, short_peer
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.price import exactly

ACCOUNT_SHOWN = 12


def job_reasons(ledger: LedgerPart | None, job: KeptJob) -> list[Reason]:
    """What is set aside for a job, what of it is paid and what is owed; nothing where there is no ledger."""
    if ledger is None or not ledger.loaded:
        return []
    if not job.state.spec.price_micro:
        return [Reason("free", "It offers no credit: nothing is set aside for it, and nobody earns by it.")]
    book, job_id = ledger.book, job.state.id
    escrow = book.escrow(job_id)
    if not escrow.held_micro:
        return [Reason("nothing_set_aside", "No credit that was set aside for it is known here.")]
    shown = escrow_view(book, job_id, escrow)
    # The book learns who is to be paid when the job ends or pay is claimed; the job itself knows sooner.
    others = sum(count for peer, count in job.accepted_by.items() if peer != job.state.submitter)
    owed = max(shown.owed_micro or 0, job.state.spec.price_micro * others - shown.paid_micro)
    numbers: dict[str, Scalar] = {
        "set_aside_micro": escrow.held_micro,
        "paid_micro": shown.paid_micro,
        "released_micro": shown.released_micro,
        "left_micro": shown.left_micro,
        "owed_micro": owed,
    }
    parts = [f"{exactly(shown.paid_micro)} paid to workers"]
    if shown.released_micro:
        parts.append(f"{exactly(shown.released_micro)} came back")
    left = f"{exactly(shown.left_micro)} left" if shown.left_micro else "nothing left"
    if owed and shown.left_micro:
        left += f", of which {exactly(owed)} is owed for accepted work that is not claimed here yet"
    sentence = f"{exactly(escrow.held_micro)} credits were set aside for it: {', '.join(parts)}, {left}."
    return [Reason("escrow", sentence, numbers)]


def unit_reasons(ledger: LedgerPart | None, job: KeptJob, unit: int) -> list[Reason]:
    """Who is paid for a unit that is decided, by which entry, and what that waits for."""
    verdict, price = job.state.verdict(unit), job.state.spec.price_micro
    if ledger is None or not ledger.loaded or verdict is None or not price:
        return []
    reasons = []
    record = ledger.book.record(job.state.id)
    named = {(verdict.epoch, key) for key in verdict.accepted}
    named |= record.payable(unit) if record is not None else set()  # those accepted later, too
    for epoch, key in sorted(named):
        worker = peer_id_from_key(key)
        if worker == job.state.submitter:
            continue  # nobody is paid for work on its own job
        numbers: dict[str, Scalar] = {"peer": worker, "price_micro": price}
        who = f"{short_peer(worker)} {{}} {exactly(price)} for it"
        code, text, entry = _claim(ledger.book, job, Execution(unit, epoch, key))
        if entry is not None:
            numbers["outcome"] = entry
        reasons.append(Reason(code, who.format(text[0]) + text[1], numbers))
    return reasons


def _claim(book: Book, job: KeptJob, execution: Execution) -> tuple[str, tuple[str, str], str | None]:
    """The code, the verb and the rest of the sentence, and the outcome of the claim that came furthest."""
    outcomes = [book.outcome(entry) for entry in book.claims_of(job.state.id, execution)]
    known = [one for one in outcomes if one is not None]
    if any(one.counts for one in known):
        return "paid", ("was paid", "."), "booked"
    for one in sorted(known, key=lambda one: not one.pending):
        return "pay_pending", ("has claimed", f", which does not count here: {one.text}."), one.code
    return "pay_unclaimed", ("has not claimed", " yet, as far as is known here."), None


def has_account(ledger: LedgerPart | None, peer: PeerId) -> bool:
    """Something is known here of a peer's account, or of its forks."""
    if ledger is None or not ledger.loaded:
        return False
    account = account_of(ledger.book.network, key_from_peer_id(peer))
    return bool(ledger.book.account(account).entries) or ledger.agent.forked(account) is not None


def peer_reasons(ledger: LedgerPart | None, peer: PeerId) -> list[Reason]:
    """What is known here of a peer's account."""
    if ledger is None or not ledger.loaded:
        return []
    book = ledger.book
    account = account_of(book.network, key_from_peer_id(peer))
    name, found = account.hex()[:ACCOUNT_SHOWN], book.account(account)
    proof = book.fork_of(account) or ledger.agent.forked(account)
    reasons = []
    if proof is not None:
        text = f"Its account {name} signed two entries for one place, entry {proof.first.seq}: it can spend no more."
        numbers: dict[str, Scalar] = {"account": account.hex(), "seq": proof.first.seq}
        reasons.append(Reason("account_forked", text, numbers))
    if not found.entries:
        text = f"No entry of its account {name} is kept here."
        return [*reasons, Reason("account_unknown", text, {"account": account.hex()})]
    pair = book.money.seen(ledger.account).pairs.get(account, [0, 0])
    numbers = {
        "account": account.hex(),
        "balance_micro": found.balance_micro,
        "entries": found.entries,
        "earned_from_micro": pair[0],
        "spent_on_micro": pair[1],
    }
    text = (
        f"Its account {name} stands at {exactly(found.balance_micro)} credits by the entries kept here; "
        f"it paid this node {exactly(pair[0])} and was paid {exactly(pair[1])} by it."
    )
    return [*reasons, Reason("account", text, numbers)]
