"""What was recorded beside the model: ``python -m tests.sim.recorded_table`` writes it into the document."""

import json
from pathlib import Path
from statistics import fmean, median
from typing import Any

from tests.bench import fits
from tests.sim.recorded_twin import Twin

ROOT = Path(__file__).parents[2]
RECORDING = ROOT / "simulations" / "recordings" / "hosts-50.json"
PAGE = ROOT / "docs" / "explanation" / "simulator-network-model.md"
BEGIN, END = "<!-- figures: 'python -m tests.sim.recorded_table' writes them -->", "<!-- end of figures -->"
SEEDS = range(1, 11)

MEDIANS = {
    "dial": "dial, ms",
    "calm_spread": "gossip, 8 connections each: until a host heard it, ms",
    "dense_spread": "gossip, all connected: until a host heard it, ms",
    "fresh_lookup": "lookup with a fresh table, ms",
    "later_lookup": "lookup with a table that others' lookups filled, ms",
    "warm_lookup": "lookup with a full table, all connected, ms",
    "killed_lookup": "lookup after a fifth was killed, ms",
    "frozen_lookup": "lookup while some hang, ms",
    "well_providers": "search for providers, ms",
    "killed_providers": "search for providers after a fifth was killed, ms",
}
MEANS = {
    "calm_copies": "copies of a gossip message at a host, 8 connections each",
    "dense_copies": "copies, all connected",
    "fresh_questions": "questions of a lookup with a fresh table",
    "warm_questions": "questions of a lookup with a full table",
}
SHARES = {
    "calm_delivered": "gossip delivered, 8 connections each",
    "dense_delivered": "gossip delivered, all connected",
    "frozen_delivered": "gossip delivered while some hang",
    "fresh_recall": "of the eight nearest found, fresh table",
    "later_recall": "of the eight nearest found, filled table",
    "warm_recall": "of the eight nearest found, full table",
    "killed_recall": "of the eight nearest found, a fifth killed",
    "frozen_recall": "of the eight nearest found while some hang",
    "frozen_again_recall": "and once more, after who hangs was left out",
    "well_providers_found": "providers found",
    "killed_providers_found": "providers found, a fifth killed",
    "frozen_providers_found": "providers found while some hang",
}


PHASES = {  # in which something was measured whose name does not begin with it
    "well_providers_found": "well",
    "killed_providers": "killed_providers",
    "killed_providers_found": "killed_providers",
    "frozen_delivered": "frozen_gossip",
    "frozen_again_recall": "frozen_again",
    "frozen_providers_found": "frozen_providers",
}
BUSY = 0.5  # share of the processors that other programs took, from which on times are theirs more than ours


def is_busy(recording: dict[str, Any], name: str) -> bool:
    """Whether the machine was too busy with other programs while this was recorded."""
    phase = PHASES.get(name, name.split("_")[0])
    return bool(recording["processor_share_of_others"][phase] > BUSY)


def read() -> dict[str, Any]:
    """The recording."""
    document: dict[str, Any] = json.loads(RECORDING.read_text())
    return document


def twins(recording: dict[str, Any]) -> list[Twin]:
    """The model's runs, made."""
    made = [Twin(recording, seed) for seed in SEEDS]
    for twin in made:
        twin.run()
    return made


def modelled(made: list[Twin], name: str) -> float:
    """The median or mean of all runs together."""
    values = [value for twin in made for value in twin.samples[name]]
    return median(values) if name in MEDIANS else fmean(values)


def modelled_share(made: list[Twin], name: str) -> dict[str, float]:
    """The share in all runs together."""
    return fits.share(*(sum(twin.shares[name][part] for twin in made) for part in (0, 1)))


def table(recording: dict[str, Any], made: list[Twin]) -> str:
    """In Markdown."""
    lines = ["| | recorded | model |", "|---|---|---|"]
    for name, words in {**MEDIANS, **MEANS}.items():
        there = recording["samples"][name]["p50" if name in MEDIANS else "mean"]
        mark = " (busy)" if is_busy(recording, name) else ""
        lines.append(f"| {words} | {there:.3g}{mark} | {modelled(made, name):.3g} |")
    for name, words in SHARES.items():
        pair = (recording["shares"][name], modelled_share(made, name))
        cells = " | ".join(f"{one['share']:.3f} ({one['low']:.3f} to {one['high']:.3f})" for one in pair)
        words += " (busy)" if is_busy(recording, name) else ""
        lines.append(f"| {words} | {cells} |")
    for name, words in (
        ("healed_s", "a fifth killed: until messages reach all others, s"),
        ("meshed_s", "until all have four mesh peers again, s"),
    ):
        there = recording["samples"][name]["p50"]
        lines.append(f"| {words} | {there:.3g} | {median(twin.samples[name][0] for twin in made):.3g} |")
    return "\n".join(lines)


def main() -> None:
    """Write the table into the document."""
    recording = read()
    before, rest = PAGE.read_text().split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{table(recording, twins(recording))}\n{END}{after}")


if __name__ == "__main__":
    main()
