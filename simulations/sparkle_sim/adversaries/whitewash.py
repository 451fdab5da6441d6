"""``whitewash``: one owner with many keys: when a wrong result of one was refused, the next comes.

Keys are peers of the entry; all but one do no work at a time. They lie at the rate, and their wrong results agree.

What stops it: a key that nobody knows decides nothing. Each wrong result costs one more of somebody who is known, and
a key has two of them out at a time.
"""

from typing import ClassVar

from sparkle_protocol import effects as fx
from sparkle_protocol.messages import LeaseRequest
from sparkle_sim.adversaries.base import Adversary, Group, Lies
from sparkle_sim.adversaries.sleeper import settled
from sparkle_sim.computing import Behaviour
from sparkle_sim.requests import WORKER


class Whitewash(Adversary):
    """A name that is thrown away."""

    kind: ClassVar[str] = "whitewash"

    def __init__(self, number: int, group: Group) -> None:
        super().__init__(number, group)
        self.burnt = False

    def behaviour(self) -> Behaviour:
        """The same lies under every name."""
        return Lies(self.group.salt, self.group.salt, self.group.rate)

    def event(self, core: int, event: object) -> object | None:
        """Once a result of this name was refused, it is of no more use."""
        self.burnt |= any(not one.accepted for one in settled(core, event))
        return event

    def effects(self, core: int, effects: fx.Effects) -> fx.Effects:
        """Under other names nothing is asked for."""
        if core != WORKER or self._is_next():
            return effects
        return tuple(one for one in effects if not self._asks(one))

    def _asks(self, effect: fx.Effect) -> bool:
        if not isinstance(effect, fx.Send) or not isinstance(effect.message, LeaseRequest):
            return False
        self.peer.later(1.0, WORKER, fx.SendFailed(effect.tag, effect.peer, "not yet"))
        return True

    def _is_next(self) -> bool:
        names = self.group.members.values()
        return next((one for one in names if isinstance(one, Whitewash) and not one.burnt), self) is self
