"""Who witnesses an account, and what they keep: its head, the last entry that they know.

The witnesses of an account are the up to 8 peers nearest to its id, chosen as the keepers of a job are
(``sparkle_protocol.work.placement``): distinct networks first, a cluster of ids gets at most a quarter of the places.
An account tells them all that it signs. One honest witness is enough to find what a node forgot of its own account,
and that an account shows different entries to different people.

Limits: nodes that know different peers choose different witnesses. An account that is cut off with its witnesses
spends in each part until the parts meet, where the fork shows.
"""

from collections.abc import Collection, Sequence

from sparkle_ledger.entries import AccountId, Entry
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.ledger_messages import Head as Head
from sparkle_protocol.work.placement import Candidate, choose_keepers

MAX_WITNESSES = 8


def head_of(entry: Entry) -> Head:
    """An entry as a head."""
    return Head(entry.incarnation, entry.seq, entry.id)


def choose_witnesses(
    account: AccountId, candidates: Sequence[Candidate], own: Collection[PeerId]
) -> tuple[PeerId, ...]:
    """Who witnesses an account, nearest first. ``own``: peers that sign for the account, who do not witness it."""
    others = [candidate for candidate in candidates if candidate.peer not in own]
    return choose_keepers(JobId(account), others, MAX_WITNESSES)
