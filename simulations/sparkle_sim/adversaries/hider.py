"""``hider``: has jobs computed and shows nobody the holds that are to pay for them.

It tells no witness of its account, and answers nobody who asks for it; its keepers hold what proves the work.

What stops it: workers look for the hold when they are given work, and take no more of a job of which nobody shows one
for a minute. They lose the pay of what they computed until then; holds count wherever they turn up, however late.
"""

from typing import ClassVar

from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.ledger_messages import EntriesRequest, HeadsReply, HeadsRequest, LedgerPush
from sparkle_sim.adversaries.credit_adversary import CreditAdversary
from sparkle_sim.requests import LEDGER


class Hider(CreditAdversary):
    """Withholds its feed."""

    kind: ClassVar[str] = "hider"

    def event(self, core: int, event: object) -> object | None:
        """Nobody is told of its account."""
        if core != LEDGER or not isinstance(event, fx.Requested):
            return event
        message = event.message
        if isinstance(message, HeadsRequest):
            self.peer.answer(event.token, HeadsReply([None] * len(message.accounts)))
        elif isinstance(message, EntriesRequest):
            self.peer.answer(event.token, messages.Refusal("unserved", "there is nothing here"))
        else:
            return event
        return None

    def effects(self, core: int, effects: fx.Effects) -> fx.Effects:
        """Nor is any witness. Its agent must not wait for an answer that it does not want."""
        if core != LEDGER:
            return effects
        told = [one for one in effects if isinstance(one, fx.Send) and isinstance(one.message, LedgerPush)]
        for one in told:
            self.peer.later(1.0, LEDGER, fx.SendFailed(one.tag, one.peer, "it is not told"))
        return tuple(one for one in effects if one not in told)
