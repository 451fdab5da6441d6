"""The table of policies as text, as plain values and as a part of a page. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from sparkle_sim.population.cheaters import KINDS
from sparkle_sim.population.trust_policies import (
    CHOSEN,
    COLD_UNITS,
    LONGEST_WAIT,
    QUICK_SHARES,
    SHARES,
    Cell,
    Figures,
    Results,
    Trial,
    Waits,
    verdicts,
    worst,
)

BEGIN = "<!-- policies: 'sparkle-sim policies --publish' writes them -->"
END = "<!-- end of the policies -->"
PICTURE = "trust-policies.svg"

WaitsOf = Mapping[str, Waits]
Row = list[str]


def shares_of(results: Results) -> list[float]:
    """Shares of cheaters that were played."""
    return [share for share in SHARES if any(cell.share == share for cell in results)]


def trials_of(results: Results) -> list[Trial]:
    """Policies that were played."""
    return list(dict.fromkeys(cell.trial for cell in results))


def by_policy(results: Results, waits: WaitsOf, *, cold: bool = False) -> tuple[Row, list[Row]]:
    """One line for each policy: with each share the most work, and the most wrong results, over all kinds."""
    shares = [share for share in shares_of(results) if not cold or share in QUICK_SHARES]
    heading = ["policy", "nobody cheats", *(f"{share:.0%} cheat" for share in shares)]
    if not cold:
        heading += ["honest punished per 10⁶", "wait of a short job: mean, 99 %", "of a result of a long one"]
    rows = []
    for trial in trials_of(results):
        row = [trial.policy.name, *(_honest(results, trial, cold=cold))]
        row += [_worst(results, trial, share, cold=cold) for share in shares]
        if not cold:
            row += [_punished(results, trial), *_waits(waits.get(trial.policy.name))]
        rows.append(row)
    return heading, rows


def _waits(found: Waits | None) -> Row:
    return ["–", "–"] if found is None else [f"{found.mean:.2f}, {found.p99:.2f}", f"{found.result:.2f}"]


def _honest(results: Results, trial: Trial, *, cold: bool) -> Row:
    found = [one for cell, one in results.items() if (cell.trial, cell.share, cell.cold) == (trial, 0.0, cold)]
    return [f"{found[0].work.value:.3f} ×" if found else "–"]


def _worst(results: Results, trial: Trial, share: float, *, cold: bool) -> str:
    found = worst(results, trial, share, cold=cold)
    if found is None:
        return "–"
    work, wrong = found
    return f"{results[work].work.value:.3f} × ({work.cheater}), {_share(results[wrong])} ({wrong.cheater})"


def _punished(results: Results, trial: Trial) -> str:
    most = max((one.punished for cell, one in results.items() if cell.trial == trial and not cell.cold), default=0.0)
    return f"{most:.2g}" if most else "0"


def by_kind(results: Results, trial: Trial) -> tuple[Row, list[Row]]:
    """One line for each kind of cheaters, with one policy."""
    shares = shares_of(results)
    heading = ["cheaters", *(f"{share:.0%}" for share in shares)]
    rows = []
    for kind in KINDS:
        found = [results.get(Cell(trial, kind.name, share)) for share in shares]
        rows.append([kind.name, *(_both(one) for one in found)])
    return heading, rows


def _both(one: Figures | None) -> str:
    return "–" if one is None else f"{one.work.value:.3f} ×, {_share(one)}"


def _share(one: Figures) -> str:
    wrong = one.wrong
    if not wrong.value:
        return f"0 (< {wrong.high:.1g})"
    return f"{wrong.value:.2g} ({wrong.low:.2g} to {wrong.high:.2g})"


def text(results: Results, waits: WaitsOf) -> str:
    """For a terminal."""
    parts = [_columns(*by_policy(results, waits))]
    parts += [f"A network that has just begun, the first {COLD_UNITS} units of each peer:"]
    parts += [_columns(*by_policy(results, waits, cold=True))]
    chosen = next((trial for trial in trials_of(results) if trial.policy == CHOSEN), None)
    if chosen is not None:
        parts += [f"'{CHOSEN.name}' with each kind of cheaters:", _columns(*by_kind(results, chosen))]
        parts += bars(results, chosen, waits)
    return "\n\n".join(parts)


def bars(results: Results, trial: Trial, waits: WaitsOf) -> list[str]:
    """A sentence for each bar."""
    wait = waits.get(trial.policy.name)
    told = [] if wait is None else [
        f"The wait of a short job: {wait.p99:.2f} of {LONGEST_WAIT:g} units at 99 %: "
        f"{'kept' if wait.p99 <= LONGEST_WAIT else 'MISSED'}"
    ]  # fmt: skip
    return told + [
        f"{verdict.bar.share:.0%} cheat, worst kind: {verdict.work:.3f} of {verdict.bar.work} × work "
        f"({verdict.work_kind}), {verdict.wrong:.2g} of {verdict.bar.wrong:.2g} wrong ({verdict.wrong_kind}): "
        f"{'kept' if verdict.kept else 'MISSED'}"
        for verdict in verdicts(results, trial)
    ]


def _columns(heading: Row, rows: Sequence[Row]) -> str:
    lines = [heading, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def _markdown(heading: Row, rows: Sequence[Row]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_json(results: Results, waits: WaitsOf) -> dict[str, object]:
    """All figures as plain values."""
    return {
        "cells": [
            {
                "policy": cell.trial.policy.name,
                "cheaters": cell.cheater,
                "share": cell.share,
                "cold_start": cell.cold,
                **asdict(found),
            }
            for cell, found in results.items()
        ],
        "waits_units": {name: asdict(found) for name, found in waits.items()},
        "bars": [
            {**asdict(verdict), "kept": verdict.kept}
            for trial in trials_of(results)
            if trial.policy == CHOSEN
            for verdict in verdicts(results, trial)
        ],
    }


def with_policies(page: str, results: Results, waits: WaitsOf, picture: str) -> str:
    """The page with these tables instead of the ones that it has.

    Args:
        page: Markdown with the two markers.
        results: of all policies; none: only look whether the page has a place for them.
        waits: of the policies.
        picture: the plot as the page sees it; empty: there is none.

    Raises:
        ValueError: the page has no place for them.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks '{BEGIN}' or '{END}'")
    if not results:
        return page
    chosen = next(trial for trial in trials_of(results) if trial.policy == CHOSEN)
    parts = [
        "| policy | what it does |\n|---|---|",
        "### An old network",
        _markdown(*by_policy(results, waits)),
        "\n".join(f"- {bar}." for bar in bars(results, chosen, waits)),
        *([f"![Work and wrong results of each policy]({picture})"] if picture else []),
        f"### `{CHOSEN.name}`, with each kind",
        _markdown(*by_kind(results, chosen)),
        "### A network that has just begun",
        f"All are newcomers; counted are the first {COLD_UNITS} units of each peer.",
        _markdown(*by_policy(results, waits, cold=True)),
    ]
    parts[0] += "".join(f"\n| `{trial.policy.name}` | {trial.policy.title} |" for trial in trials_of(results))
    return f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}"
