"""The figures of ``docs/explanation/credit.md`` are those that the code computes."""

import re
from pathlib import Path

import pytest

from sparkle_ledger.entries import AccountId
from sparkle_ledger.flow import OPEN, CreditGraph, Weights
from sparkle_protocol.facts import Policy, Resources
from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.fairness import LOTTERY_SHARE
from sparkle_protocol.work.line import Place
from sparkle_protocol.work.price import CREDIT, in_words, job_hold_micro, unit_price_micro
from sparkle_worker.kernels.registry import ARRAY_KERNELS, KERNELS

TEXT = (Path(__file__).resolve().parents[3] / "docs/explanation/credit.md").read_text(encoding="utf-8")
FLOWING = " ".join(TEXT.split())
NAMES = ("ann", "ben", "cat")


def rows(first_cell: str) -> list[list[str]]:
    """Cells of the table whose heading begins with this."""
    table = TEXT[TEXT.index(f"| {first_cell} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def needed(unit: str) -> Resources:
    """By the kernel that the page names."""
    if unit.startswith("`gemm`"):
        gemm = ARRAY_KERNELS["gemm"]
        cost = gemm.cost(gemm.validate({"m": 4096, "k": 4096, "n": 4096, "dtype": "float32"}))
    else:
        name, params, units = (
            ("prime_count", {"stop": 10**12}, 250)
            if unit.startswith("`prime_count`")
            else ("monte_carlo_pi", {"samples": 10**10}, 64)
        )
        kernel = KERNELS[name]
        clean = kernel.validate(params)
        assert kernel.default_units(clean) == units
        cost = kernel.cost(kernel.unit(clean, units, units // 2))
    return Resources(float(cost.flops), float(cost.bytes))


def test_prices() -> None:
    table = rows("a unit of")
    assert len(table) == 3
    for unit, operations, size, price, words in table:
        resources = needed(unit)
        assert (int(operations), int(size)) == (resources.flops, resources.bytes), unit
        assert int(price) == unit_price_micro(resources)
        assert words == in_words(unit_price_micro(resources))
    held = job_hold_micro(250, int(table[0][3]), Policy(quorum=2))
    assert f"For the 250 units above that is {in_words(held)}" in FLOWING


def test_weights() -> None:
    table = rows("credits that flow from you to the submitter")
    assert len(table) == 7
    for credits_, weight in table:
        assert float(weight) == round(OPEN.weight(round(float(credits_) * CREDIT)), 2)


def weights_of(*waiting: str) -> dict[str, float]:
    me, ann, ben = AccountId(b"me"), AccountId(b"ann"), AccountId(b"ben")
    weights = Weights(CreditGraph(me), lambda peer: AccountId(peer.encode()))
    weights.learn({(me, ann): 3 * CREDIT, (ann, ben): CREDIT})
    weights.settle({PeerId(name): name for name in waiting})
    return {name: weights.weigh(PeerId(name)) for name in waiting}


def test_the_example_of_ann_ben_and_cat() -> None:
    table = rows("who waits")
    assert len(table) == 4
    for who, *cells in table:
        found = weights_of(*(name for name in NAMES if name in who.lower()))
        told = {name: float(cell.removeprefix("weight ")) for name, cell in zip(NAMES, cells, strict=True) if cell}
        assert told == pytest.approx(found, abs=0.01), who


def test_what_cheaters_get() -> None:
    assert f"below {OPEN.least_micro / CREDIT} credits counts nothing" in FLOWING
    assert f"names can weigh {OPEN.most(CREDIT):.1f} together" in FLOWING
    me, ann = AccountId(b"me"), AccountId(b"ann")
    graph = CreditGraph(me)
    graph.set(me, ann, 3 * CREDIT)
    names = [AccountId(b"name %d" % number) for number in range(100)]
    for name in names:
        graph.set(ann, name, 50 * CREDIT)
    assert "3 credits flow to all of them together" in FLOWING
    assert sum(graph.flows(names, OPEN.levels()).values()) == 3 * CREDIT
    assert round(1 / LOTTERY_SHARE) == 10
    assert "one pick in ten" in FLOWING


def test_the_sentence_that_why_prints() -> None:
    from sparkle_p2p.node.why_line import line_reason

    shown = re.search(r"^  (In the fair lane .*)$", TEXT, re.MULTILINE)
    assert shown is not None
    assert shown.group(1) == line_reason(Place("fair", 2.0, 4, 1, None, 16.0)).sentence
