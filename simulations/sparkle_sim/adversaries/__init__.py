"""Peers that do not keep to the rules, by the kinds that ``[[adversaries]]`` of a scenario names.

Each kind is a class in a file named after it, which says what it does and what stops it:

=================  ==============================================================================================
``cheat``          every result is wrong, and nobody else's
``sometimes``      a wrong result of its own at the rate
``collude``        all of an entry agree on one wrong result for each unit
``copy``           states others' commits, or results that were shown, as its own
``withhold``       commits, and does not show its result
``hoard``          takes units and computes nothing
``silent-keeper``  takes jobs to keep and stores nothing; does not answer, or says that it has all
``equivocate``     as a keeper it says different things to different peers
``sybil``          many keys near a job's routing place, in one network, that equivocate
``flood``          far too much of everything
``sleeper``        honest until it is believed, then wrong at the rate
``gang``           sleepers that agree on wrong results, and find each other right
``framer``         wrong where somebody else has answered, so that honest workers be convicted
``sponge``         right, and very slow
``trifles``        right about small units, wrong about large ones
``whitewash``      one owner with many keys: when one is rejected, the next comes
=================  ==============================================================================================

These do something only where there is credit (``[credit]`` of a scenario):

=================  ==============================================================================================
``forker``         signs two entries for one place of its account, and shows each to some
``canceller``      takes back what it set aside for a job while others still work for it
``hider``          has jobs computed and shows nobody the holds that are to pay for them
``vanisher``       leaves for good as soon as its jobs are published
``freeloader``     one of many keys that spend what each may at the start, and never work
``minter``         one of a ring that pays each other for work that nobody does
``certifier``      one of a job's keepers that state that they computed everything
``accuser``        says of honest accounts that they forked
=================  ==============================================================================================
"""

from collections import Counter
from collections.abc import Iterable

from sparkle_protocol.errors import ConfigError
from sparkle_sim.adversaries.accuser import Accuser
from sparkle_sim.adversaries.base import Adversary, Group
from sparkle_sim.adversaries.canceller import Canceller
from sparkle_sim.adversaries.certifier import Certifier
from sparkle_sim.adversaries.cheat import Cheat
from sparkle_sim.adversaries.collude import Collude
from sparkle_sim.adversaries.copy import Copy
from sparkle_sim.adversaries.equivocate import Equivocate
from sparkle_sim.adversaries.flood import Flood
from sparkle_sim.adversaries.forker import Forker
from sparkle_sim.adversaries.framer import Framer
from sparkle_sim.adversaries.freeloader import Freeloader
from sparkle_sim.adversaries.gang import Gang
from sparkle_sim.adversaries.hider import Hider
from sparkle_sim.adversaries.hoard import Hoard
from sparkle_sim.adversaries.hostile_peer import HostilePeer
from sparkle_sim.adversaries.minter import Minter
from sparkle_sim.adversaries.silent_keeper import SilentKeeper
from sparkle_sim.adversaries.sleeper import Sleeper
from sparkle_sim.adversaries.sometimes import Sometimes
from sparkle_sim.adversaries.sponge import Sponge
from sparkle_sim.adversaries.sybil import Sybil
from sparkle_sim.adversaries.trifles import Trifles
from sparkle_sim.adversaries.vanisher import Vanisher
from sparkle_sim.adversaries.voting import expected_wrong, expected_wrong_among
from sparkle_sim.adversaries.whitewash import Whitewash
from sparkle_sim.adversaries.withhold import Withhold
from sparkle_sim.draws import draws
from sparkle_sim.loading import is_reference, load
from sparkle_sim.scenario import Adversaries, Scenario

__all__ = [
    "KINDS", "Adversary", "Group", "HostilePeer", "assign", "expected_wrong", "expected_wrong_among", "kind_of",
]  # fmt: skip

_ALL: tuple[type[Adversary], ...] = (
    Accuser, Canceller, Certifier, Cheat, Collude, Copy, Equivocate, Flood, Forker, Framer, Freeloader, Gang, Hider,
    Hoard, Minter, SilentKeeper, Sleeper, Sometimes, Sponge, Sybil, Trifles, Vanisher, Whitewash, Withhold,
)  # fmt: skip
KINDS: dict[str, type[Adversary]] = {one.kind: one for one in _ALL}


def kind_of(text: str) -> type[Adversary] | None:
    """The class of a kind, or the one that ``FILE.py:CLASS`` names; None for a kind that there is not.

    Raises:
        ConfigError: there is no such class; to follow the key that names it.
    """
    if not is_reference(text):
        return KINDS.get(text)
    found = load(text, Adversary)
    if not found.kind:
        raise ConfigError(f"names {text}, which has no kind; give the class kind = '...'")
    return found


def assign(seed: int, scenario: Scenario, clients: Iterable[int] = ()) -> dict[int, Adversary]:
    """Who is an adversary in a run, by peer. Whoever submits a job or has a client is none unless it is named.

    Which peers an entry draws depends on the seed, its kind and its place among the entries of that kind, and a
    larger share draws the same ones and more. A peer that two entries draw belongs to the first of them. So an entry
    can be taken out, or its rate changed, without changing whom the others draw.

    Raises:
        ConfigError: an entry asks for what there is not.
    """
    found: dict[int, Adversary] = {}
    submitters = {plan.submitter for plan in scenario.jobs}.union(clients)
    seen: Counter[str] = Counter()
    for place, entry in enumerate(scenario.adversaries):
        make = _checked(place, entry, scenario)
        group = Group(seed, f"{make.kind}/{seen[make.kind]}", entry.rate, scenario)  # wherever its file lies
        seen[make.kind] += 1
        others = [number for number in range(scenario.peers.count) if number not in submitters]
        for number in entry.peers or _drawn(seed, group.name, others, entry.share):
            if number not in found:
                found[number] = group.members[number] = make(number, group)
    return dict(sorted(found.items()))


def _checked(place: int, entry: Adversaries, scenario: Scenario) -> type[Adversary]:
    """The kind of an entry that can be had."""
    try:
        make = kind_of(entry.kind)
    except ConfigError as error:
        raise ConfigError(f"adversaries[{place}].kind {error}") from error
    if make is None:
        raise ConfigError(f"adversaries[{place}].kind is '{entry.kind}'; it must be one of {', '.join(KINDS)}")
    if make.of_credit and not scenario.credit.enabled:
        raise ConfigError(f"adversaries[{place}].kind is '{entry.kind}', which needs credit.enabled = true")
    peers = scenario.peers.count
    for number in entry.peers:
        if not 0 <= number < peers:
            raise ConfigError(f"adversaries[{place}].peers names peer {number}; the {peers} peers begin with 0")
    if not make.rated and entry.rate != 1.0:
        raise ConfigError(
            f"adversaries[{place}].rate is {entry.rate:g}, but '{entry.kind}' always does it; leave it out"
        )
    return make


def _drawn(seed: int, name: str, others: list[int], share: float) -> list[int]:
    """A share of these peers, in order."""
    ranked = sorted(others, key=lambda number: draws(seed, number, "adversaries", name).random())
    return sorted(ranked[: round(share * len(others))])
