"""The simulated network does what 50 real hosts did in the recording that its costs were fitted to.

The figures of both are printed: ``python3 run.py test tests/sim/test_recording.py -s``.
"""

import json
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest

from tests.bench import fits
from tests.sim.recorded_twin import Twin

RECORDING = Path(__file__).parents[2] / "simulations" / "recordings" / "hosts-50.json"
SEEDS = (1, 2, 3)

# How many times less or more the model's median may be than that of the hosts. Times until a lookup is over or a
# message is everywhere depend on how the system shared two cores among 50 threads and everybody else's programs.
MEDIANS = {
    "dial": 1.25,
    "calm_spread": 2.0,
    "dense_spread": 2.0,
    "fresh_lookup": 2.0,
    "later_lookup": 2.0,
    "warm_lookup": 2.0,
    "killed_lookup": 2.0,
    "frozen_lookup": 2.0,
    "well_providers": 2.0,
    "killed_providers": 2.0,
}
MEANS = {"calm_copies": 1.25, "dense_copies": 1.25, "fresh_questions": 1.3, "warm_questions": 1.3}
SHARES = (
    "calm_delivered",
    "dense_delivered",
    "frozen_delivered",
    "fresh_recall",
    "later_recall",
    "warm_recall",
    "killed_recall",
    "frozen_recall",
    "frozen_again_recall",
    "well_providers_found",
    "killed_providers_found",
    "frozen_providers_found",
)


@pytest.fixture(scope="module")
def recording() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(RECORDING.read_text())
    return document


@pytest.fixture(scope="module")
def twins(recording: dict[str, Any]) -> list[Twin]:
    made = [Twin(recording, seed) for seed in SEEDS]
    for twin in made:
        twin.run()
    return made


def _all(twins: list[Twin], name: str) -> list[float]:
    return [value for twin in twins for value in twin.samples[name]]


def _within(name: str, recorded: float, modelled: float, factor: float) -> bool:
    fits_in = recorded / factor <= modelled <= recorded * factor
    print(f"{name:26} recorded {recorded:9.4g}  modelled {modelled:9.4g}  within {factor:g} times: {fits_in}")
    return fits_in


def test_what_takes_time_takes_as_long(recording: dict[str, Any], twins: list[Twin]) -> None:
    wrong = [
        name
        for name, factor in MEDIANS.items()
        if not _within(name, recording["samples"][name]["p50"], median(_all(twins, name)), factor)
    ]
    wrong += [
        name
        for name, factor in MEANS.items()
        if not _within(name, recording["samples"][name]["mean"], fmean(_all(twins, name)), factor)
    ]
    assert not wrong


def test_what_fails_fails_as_often(recording: dict[str, Any], twins: list[Twin]) -> None:
    """The intervals of 95 % of the two shares overlap."""
    wrong = []
    for name in SHARES:
        found = fits.share(*(sum(twin.shares[name][part] for twin in twins) for part in (0, 1)))
        there = recording["shares"][name]
        overlap = found["low"] <= there["high"] and there["low"] <= found["high"]
        print(
            f"{name:26} recorded {there['share']:.3f} [{there['low']:.3f}, {there['high']:.3f}]  "
            f"modelled {found['share']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
        )
        wrong += [] if overlap else [name]
    assert not wrong


def test_a_mesh_heals_as_fast(recording: dict[str, Any], twins: list[Twin]) -> None:
    """Messages reach all that are left, and who lost mesh peers has enough again."""
    for name in ("healed_s", "meshed_s"):
        times = [twin.samples[name][0] for twin in twins]
        print(f"{name:26} recorded {recording['samples'][name]['p50']:9.4g}  modelled {times}")
        assert min(times) <= 60.0 + 5.0, "back-off of a minute is over then, at the latest"
