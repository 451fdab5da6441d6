"""Answers ``sparkle credit`` from the ledger that this node keeps."""

import asyncio
from collections.abc import Iterable
from typing import Protocol

from sparkle_ledger.agent.core import LedgerAgent
from sparkle_p2p.ledger_view import CreditView
from sparkle_p2p.node.ledger_reading import CreditReading, find_account
from sparkle_p2p.runtime.clock import wall_ms
from sparkle_protocol.errors import ConfigError
from sparkle_protocol.ids import PeerId


class Ledger(Protocol):
    """A node's part in the ledger, as far as it is read here."""

    @property
    def agent(self) -> LedgerAgent:
        """Signs for our account; its book is what we know of all."""
        ...


async def read_credit(ledger: Ledger | None, name: str | None, peers: Iterable[PeerId]) -> CreditView:
    """The credit of our own account (None) or of another, without holding the node up.

    Raises:
        NotFound: nothing of that account is here.
        ConfigError: this node has no ledger, or not yet.
    """
    if ledger is None:
        raise ConfigError("this node has no part in the ledger; ask another one, or wait if it is still starting")
    agent = ledger.agent
    own = agent.account.id
    account = own if name is None else find_account(agent.book, name, own, peers)
    reading = CreditReading(agent.book, account, wall_ms())
    for _ in reading.steps():
        await asyncio.sleep(0)
    return reading.view(own=agent.state if account == own else None, forks=agent.forks())
