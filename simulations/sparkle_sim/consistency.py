"""What the keys of a scenario have to do with each other, and what cannot be simulated at all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparkle_protocol.errors import ConfigError
from sparkle_protocol.work.quota import BLOB_SHARES
from sparkle_sim import adversaries, checkers, faults
from sparkle_sim.blobs import MB, MIB
from sparkle_sim.churn import read_trace
from sparkle_sim.engine import rules_of
from sparkle_sim.expected import did_you_mean, in_words
from sparkle_sim.loading import is_reference
from sparkle_sim.scenario import Adversaries, Churn, Fault, JobPlan, Scenario

HINTS = {"restart": "; 'kill' with for_s starts them again after that time"}

FULL_PEERS = 200_000  # some 30 kB each: 6 GB
JOBS_AT_ONCE = 1024  # of one submitter (sparkle_protocol.work.submitter.MAX_JOBS)
ALL_UNITS = 20_000_000  # of the full engine; each costs some kB and some tens of events
SHARES_MISS = 1e-3  # thirds are written as 0.333

Mistake = tuple[str, str]  # key, and what is wrong, to follow it


def mistakes(scenario: Scenario, document: Mapping[str, Any]) -> Iterator[Mistake]:
    """All of them, those first that others may follow from. ``document`` tells what the file really says."""
    for check in (_size, _regions, _distances, _wires, _jobs, _churn):
        yield from check(scenario)
    yield from _faults(scenario, _tables(document, "faults"))
    yield from _adversaries(scenario, _tables(document, "adversaries"))
    known = [kind.name for kind in checkers.KINDS]
    for name in scenario.checks.names:
        yield from _known_kind("checks.names", name, known)
    yield from _of_their_own(scenario)


def _tables(document: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    tables: Sequence[Mapping[str, Any]] = document.get(key, [])
    return tables


def _size(scenario: Scenario) -> Iterator[Mistake]:
    peers = scenario.peers
    if scenario.engine == "full" and peers.count > FULL_PEERS:
        yield (
            "peers.count",
            (
                f"is {peers.count}, and the full engine takes some 30 kB and thousands of events for each; "
                f"ask for at most {FULL_PEERS}, or set engine = 'population'"
            ),
        )
    if peers.arrive_s >= scenario.seconds:
        yield "peers.arrive_s", f"must be less than seconds ({scenario.seconds:g}), or some never arrive"
    if peers.schedule.share and peers.schedule.from_h == peers.schedule.to_h:
        yield "peers.schedule.to_h", f"must not be from_h ({peers.schedule.from_h:g}): nobody would ever work"


# --- the network ------------------------------------------------------------------------------------------------


def _regions(scenario: Scenario) -> Iterator[Mistake]:
    regions = scenario.wires.regions
    if not regions:
        yield "wires.regions", "must have at least one region; leave it out for a single one"
        return
    total = sum(region.share for region in regions)
    if abs(total - 1.0) > SHARES_MISS:
        yield "wires.regions", f"have shares that make {total:g}; together they must make 1"
    names = [region.name for region in regions]
    for number, name in enumerate(names):
        if not name:
            yield f"wires.regions.{number}.name", "must not be empty"
        elif name in names[:number]:
            yield f"wires.regions.{number}.name", f"is '{name}', as that of an earlier region; names must differ"


def _distances(scenario: Scenario) -> Iterator[Mistake]:
    names = [region.name for region in scenario.wires.regions]
    seen: list[list[str]] = []
    for number, distance in enumerate(scenario.wires.distances):
        key, pair = f"wires.distances.{number}.between", sorted(distance.between)
        for name in distance.between:
            if name not in names:
                yield key, f"names '{name}', which is no region{did_you_mean(name, names) or _there_are(names)}"
        if pair[0] == pair[1]:
            yield key, "names one region twice; say inside_ms in the region itself"
        if pair in seen:
            yield key, f"gives the distance of {pair[0]} and {pair[1]} a second time"
        seen.append(pair)


def _wires(scenario: Scenario) -> Iterator[Mistake]:
    wires = scenario.wires
    if wires.nat_share + wires.symmetric_share > 1.0:
        both = wires.nat_share + wires.symmetric_share
        yield "wires.symmetric_share", f"makes {both:g} with nat_share; together they are at most 1"
    if wires.loss >= 1.0:
        yield "wires.loss", "must be less than 1, or nothing ever arrives"


# --- jobs and churn ---------------------------------------------------------------------------------------------


def _jobs(scenario: Scenario) -> Iterator[Mistake]:
    count, at_once = scenario.peers.count, dict[tuple[int, float], int]()
    for number, plan in enumerate(scenario.jobs):
        key = f"jobs.{number}"
        last_s = plan.at_s + (plan.repeat - 1) * plan.every_s
        if plan.submitter >= count:
            yield f"{key}.submitter", f"is {plan.submitter}, but the peers are 0 to {count - 1}"
        if plan.quorum > count:
            yield f"{key}.quorum", f"is {plan.quorum}, but there are only {count} peers to agree"
        if plan.at_s >= scenario.seconds:
            yield f"{key}.at_s", f"is {plan.at_s:g}, but the run ends at {scenario.seconds:g} s"
        elif last_s >= scenario.seconds:
            yield f"{key}.repeat", f"puts the last job at {last_s:g} s, but the run ends at {scenario.seconds:g} s"
        if plan.repeat > 1 and not plan.every_s:
            at_once[plan.submitter, plan.at_s] = at_once.get((plan.submitter, plan.at_s), 0) + plan.repeat
            if at_once[plan.submitter, plan.at_s] > JOBS_AT_ONCE:
                yield (
                    f"{key}.repeat",
                    f"gives peer {plan.submitter} more than {JOBS_AT_ONCE} jobs at once",
                )
        if plan.unit_price_micro and not scenario.credit.enabled:
            yield f"{key}.unit_price_micro", "has no effect without credit.enabled = true"
        yield from _blobs(key, plan, scenario)
    if scenario.credit.enabled and scenario.engine == "population":
        yield "credit.enabled", "needs engine = 'full': the population engine runs none of the cores"
    units = sum(plan.units * plan.repeat for plan in scenario.jobs)
    if scenario.engine == "full" and units > ALL_UNITS:
        yield "jobs", f"have {units} units, and the full engine takes {ALL_UNITS}; set engine = 'population'"


def _blobs(key: str, plan: JobPlan, scenario: Scenario) -> Iterator[Mistake]:
    """Inputs, results that are blobs, and checks of these."""
    if plan.inputs > 1 and not plan.input_mb:
        yield f"{key}.inputs", "has no effect without input_mb: how large each of them is"
    if plan.inputs > plan.units:
        yield f"{key}.inputs", f"is {plan.inputs}, but the {plan.units} units need one each, and the others nobody"
    if plan.check == "algebraic" and not plan.result_mb:
        yield f"{key}.check", "needs result_mb: small results are compared, blobs are checked"
    if scenario.engine == "population" and (plan.input_mb or plan.result_mb):
        name = "input_mb" if plan.input_mb else "result_mb"
        yield f"{key}.{name}", "has no effect with engine = 'population', which moves no blobs"
    space_mb = scenario.peers.machines.blobs_mb * MIB / MB * BLOB_SHARES[0]
    if plan.inputs * plan.input_mb > space_mb:
        total = plan.inputs * plan.input_mb
        yield (
            f"{key}.input_mb",
            f"makes {total:g} MB of inputs, and a keeper has {space_mb:g} MB for one submitter; "
            "ask for less, or raise peers.machines.blobs_mb",
        )


def _churn(scenario: Scenario) -> Iterator[Mistake]:
    churn = scenario.peers.churn
    if churn.kind == "trace":
        yield from _trace(churn, scenario)
    elif churn.trace:
        yield "peers.churn.trace", f"has no effect with kind = '{churn.kind}'; set kind = 'trace'"
    if churn.kind in ("weibull", "exponential") and churn.begin_s >= scenario.seconds:
        yield "peers.churn.begin_s", f"is {churn.begin_s:g}, but the run ends at {scenario.seconds:g} s"
    if churn.end_s and (churn.kind in ("none", "trace") or scenario.engine == "population"):
        where = "in the population engine" if scenario.engine == "population" else f"with kind = '{churn.kind}'"
        yield "peers.churn.end_s", f"has no effect {where}"
    elif churn.end_s and churn.end_s <= churn.begin_s:
        yield "peers.churn.end_s", f"is {churn.end_s:g}, but nodes come and go from {churn.begin_s:g} s on"


def _trace(churn: Churn, scenario: Scenario) -> Iterator[Mistake]:
    """The CSV is there, and each line of it can be."""
    if not churn.trace:
        yield "peers.churn.trace", "is missing: with kind = 'trace' it names a CSV file with peer,up_s,down_s"
        return
    try:
        read_trace(Path(churn.trace), scenario.peers.count)
    except ConfigError as error:
        yield "peers.churn.trace", f"names a file that cannot be used: {error}"


# --- faults and adversaries -------------------------------------------------------------------------------------


def _faults(scenario: Scenario, tables: Sequence[Mapping[str, Any]]) -> Iterator[Mistake]:
    names = [region.name for region in scenario.wires.regions]
    for number, fault in enumerate(scenario.faults):
        key = f"faults.{number}"
        yield from _known_kind(f"{key}.kind", fault.kind, faults.KINDS)
        yield from _one_of(key, tables[number], ("peers", "share", "regions"), "whom it hits")
        yield from _peers_there(f"{key}.peers", fault.peers, scenario.peers.count)
        for name in fault.regions:
            if name not in names:
                near = did_you_mean(name, names) or _there_are(names)
                yield f"{key}.regions", f"names '{name}', which is no region{near}"
        if fault.at_s >= scenario.seconds:
            yield f"{key}.at_s", f"is {fault.at_s:g}, but the run ends at {scenario.seconds:g} s"
        elif fault.at_s + fault.for_s > scenario.seconds:
            over_s = fault.at_s + fault.for_s
            yield f"{key}.for_s", f"ends the fault at {over_s:g} s, but the run ends at {scenario.seconds:g} s"
        yield from _partition(key, fault, names, scenario.peers.count)
        yield from _amount(key, fault)


def _partition(key: str, fault: Fault, regions: Sequence[str], count: int) -> Iterator[Mistake]:
    """Something must be on the other side."""
    if fault.kind not in ("partition", "one-way"):
        return
    if fault.regions and len(dict.fromkeys(fault.regions)) == len(regions):
        yield f"{key}.regions", "are all that there are: nobody is on the other side"
    if len(dict.fromkeys(fault.peers)) >= count:
        yield f"{key}.peers", "are all that there are: nobody is on the other side"


def _amount(key: str, fault: Fault) -> Iterator[Mistake]:
    if fault.kind in faults.FACTORED and fault.factor == 1.0:
        yield f"{key}.factor", f"must be given for '{fault.kind}', and not be 1: how many times longer things take"
    if fault.kind == "skew" and not fault.amount_s:
        yield f"{key}.amount_s", "must be given for 'skew', and not be 0: by how much clocks go wrong"


def _adversaries(scenario: Scenario, tables: Sequence[Mapping[str, Any]]) -> Iterator[Mistake]:
    submitters = [plan.submitter for plan in scenario.jobs]
    for number, group in enumerate(scenario.adversaries):
        key = f"adversaries.{number}"
        if not is_reference(group.kind):
            yield from _known_kind(f"{key}.kind", group.kind, list(adversaries.KINDS))
        yield from _one_of(key, tables[number], ("peers", "share"), "who they are")
        if group.rate != 1.0 and group.kind in adversaries.KINDS and not adversaries.KINDS[group.kind].rated:
            yield f"{key}.rate", f"has no effect with kind = '{group.kind}'"
        yield from _peers_there(f"{key}.peers", group.peers, scenario.peers.count)
        of_credit = group.kind in adversaries.KINDS and adversaries.KINDS[group.kind].of_credit
        if of_credit and not scenario.credit.enabled:
            yield f"{key}.kind", f"is '{group.kind}', which needs credit.enabled = true"
        for peer in group.peers:
            if peer in submitters and not of_credit:
                yield f"{key}.peers", f"names peer {peer}, which submits jobs; submitters are honest"
    yield from _overlap(scenario.adversaries)
    total = sum(group.share for group in scenario.adversaries)
    if total > 1.0:
        yield "adversaries", f"have shares that make {total:g}; together they are at most 1"


def _of_their_own(scenario: Scenario) -> Iterator[Mistake]:
    """Classes that the scenario names must be there; of these the population engine has no use."""
    named: list[tuple[str, str, Callable[[str], object]]] = [
        (f"adversaries.{number}.kind", group.kind, adversaries.kind_of)
        for number, group in enumerate(scenario.adversaries)
        if is_reference(group.kind)
    ]
    named += [("checks.own", text, checkers.own) for text in scenario.checks.own]
    if scenario.policy != "production":
        if not is_reference(scenario.policy):
            yield "policy", f"must be 'production' or FILE.py:CLASS of your own, not '{scenario.policy}'"
            return
        named.append(("policy", scenario.policy, rules_of))
    for key, text, load in named:
        if scenario.engine == "population":
            yield key, "needs engine = 'full': the population engine runs none of the cores"
        try:
            load(text)
        except ConfigError as error:
            yield key, str(error)


def _overlap(groups: Sequence[Adversaries]) -> Iterator[Mistake]:
    seen: dict[int, None] = {}
    for number, group in enumerate(groups):
        for peer in group.peers:
            if peer in seen:
                yield f"adversaries.{number}.peers", f"names peer {peer} a second time; each has one way to cheat"
            seen[peer] = None


def _known_kind(key: str, kind: str, known: Sequence[str]) -> Iterator[Mistake]:
    if kind not in known:
        near = HINTS.get(kind) or did_you_mean(kind, known)
        yield key, f"must be one of {in_words(known)}, not '{kind}'{near}"


def _one_of(key: str, table: Mapping[str, Any], names: Sequence[str], what: str) -> Iterator[Mistake]:
    given = [name for name in names if table.get(name)]
    if not given and "share" not in table:  # a share of 0 is where a sweep may begin
        yield key, f"does not say {what}: give {in_words(names)}"
    elif len(given) > 1:
        yield f"{key}.{given[1]}", f"stands beside {given[0]}; give one of them"


def _peers_there(key: str, peers: Sequence[int], count: int) -> Iterator[Mistake]:
    for peer in peers:
        if not 0 <= peer < count:
            yield key, f"names peer {peer}, but the peers are 0 to {count - 1}"


def _there_are(names: Sequence[str]) -> str:
    return f"; there are {', '.join(names)}"
