"""What became of an entry: one code for programs, one sentence for people.

``booked``: it counts. ``gap``: entries before it are missing. ``pending:…``: it is in its place, and counts once
something else arrives. ``void:…``: it keeps its place in the chain, and nothing moves by it. ``refused:…``: it has no
place in the chain at all.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Outcome:
    """Compare ``code``."""

    code: str
    text: str
    counts: bool = field(init=False)  # the entry does what it says
    pending: bool = field(init=False)  # it may yet, as things are
    placed: bool = field(init=False)  # it stands in its account's chain, whether or not it counts

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", self.code == "booked")
        object.__setattr__(self, "pending", self.code.startswith("pending:"))
        object.__setattr__(self, "placed", not self.code.startswith(("gap", "refused:")))


BOOKED = Outcome("booked", "it counts")
GAP = Outcome("gap", "entries before it are not known here")

NO_EVIDENCE = Outcome("pending:evidence", "nothing is known here about the job")
SHUT = Outcome("pending:shut", "its job was settled long ago, and what proved that was forgotten here for good")
NOT_ACCEPTED = Outcome("pending:not_accepted", "no certificate here shows that all its executions were accepted")
NO_HOLD = Outcome("pending:hold", "the hold that it is to be paid from is not known here")
NOT_OVER = Outcome("pending:not_over", "nothing here shows that the job is complete or cancelled")

OVERDRAWN = Outcome("void:overdrawn", "it goes beyond the account's limit")
FORKED = Outcome("void:forked", "the account signed two entries for one place at or before it")
CUT = Outcome("void:cut", "the account began anew from an earlier entry")
REVOKED_BRANCH = Outcome("void:revoked", "a Rotate or Revoke of the account is not among the entries before it")
NOT_OWN_JOB = Outcome("void:not_own_job", "the job's spec was not signed by a key of this account")
OWN_JOB = Outcome("void:own_job", "nobody is paid for work on its own job")
WRONG_KEY = Outcome("void:wrong_key", "the executions are by a key that is not this account's")
WRONG_AMOUNT = Outcome("void:wrong_amount", "the amount is not the job's price for these executions")
WRONG_PAYER = Outcome("void:wrong_payer", "the entry that it names is not of this payer, or not for this job")
NO_SUCH_UNIT = Outcome("void:no_such_unit", "the job does not have one of these units")
UNFUNDED = Outcome("void:unfunded", "the hold that it names does not count, or does not cover the job")
SETTLED = Outcome("void:settled", "one of its executions is claimed twice, or was claimed before")
NOTHING_SPARE = Outcome("void:nothing_spare", "the job's escrow has nothing that is not owed")
BAD_PROOF = Outcome("void:bad_proof", "it does not prove a fork")
NO_CONSENT = Outcome("void:no_consent", "the new key did not agree to sign for this account in this place")

BAD_START = Outcome("refused:bad_start", "a feed begins with Genesis by the account's own key, or with Restore")
MISPLACED = Outcome("refused:misplaced", "Genesis and Restore stand at the beginning only")
BAD_LINK = Outcome("refused:bad_link", "the entry that it follows has another account, incarnation or number")
BAD_SIGNER = Outcome("refused:wrong_key", "its key was not in force for the account in this place")
AFTER_REVOKE = Outcome("refused:revoked", "the account was revoked by the entry before")
OLD = Outcome("refused:old", "the account's entries up to its place are folded here")
TOO_FAR = Outcome("refused:too_far", "too many entries wait for others; offer it again later")

BY_CODE = {one.code: one for one in list(globals().values()) if isinstance(one, Outcome)}
