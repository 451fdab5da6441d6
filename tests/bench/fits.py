"""What samples say: quantiles, a fitted distribution, a share with its interval. No I/O."""

from collections.abc import Sequence
from math import erf, exp, log, sqrt
from statistics import fmean, pstdev
from typing import Any

SHARES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
Z95 = 1.959964  # of the normal distribution, for intervals of 95 %
LEAST = 1e-3  # what was measured as nothing, or less than its background, in the unit of the samples


def quantile(values: Sequence[float], share: float) -> float:
    """Interpolated between the samples."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Count, extremes, mean and quantiles."""
    if not values:
        return {"count": 0}
    found = {f"p{share * 100:g}": quantile(values, share) for share in SHARES}
    found = {"least": min(values), **found, "most": max(values), "mean": fmean(values)}
    return {"count": len(values), **{name: rounded(value) for name, value in found.items()}}


def lognormal(values: Sequence[float]) -> dict[str, float]:
    """The lognormal distribution of greatest likelihood, as its median and sigma, and how far it is from the samples.

    ``distance`` is that of Kolmogorov and Smirnov: the greatest difference of the two distribution functions.
    """
    logs = sorted(log(max(value, LEAST)) for value in values)
    if not logs:
        return {"count": 0}
    mu, sigma, count = fmean(logs), pstdev(logs), len(logs)
    distance = 0.0
    for rank, value in enumerate(logs):
        here = 0.5 * (1.0 + erf((value - mu) / (sigma * sqrt(2.0)))) if sigma else 0.5
        distance = max(distance, abs(here - rank / count), abs(here - (rank + 1) / count))
    fitted = {"median": exp(mu), "sigma": sigma, "distance": distance}
    return {"count": count, **{name: rounded(value) for name, value in fitted.items()}}


def share(hits: int, count: int) -> dict[str, float]:
    """A share with its 95 % interval (Wilson 1927)."""
    if not count:
        return {"hits": 0, "count": 0}
    part, z2 = hits / count, Z95**2
    middle = (part + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 * sqrt(part * (1 - part) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return {"hits": hits, "count": count, "share": rounded(part), "low": rounded(low), "high": rounded(high)}


def table(document: dict[str, Any]) -> str:
    """A recording for people."""
    lines = [f"{'samples':28} {'count':>6} {'p5':>9} {'median':>9} {'p95':>9} {'most':>9}"]
    for name, found in document["samples"].items():
        cells = " ".join(f"{found.get(key, float('nan')):9.4g}" for key in ("p5", "p50", "p95", "most"))
        lines.append(f"{name:28} {found['count']:6d} {cells}")
    lines += ["", f"{'fitted (lognormal)':28} {'count':>6} {'median':>9} {'sigma':>9} {'distance':>9}"]
    for name, found in document["fits"].items():
        cells = " ".join(f"{found.get(key, float('nan')):9.4g}" for key in ("median", "sigma", "distance"))
        lines.append(f"{name:28} {found['count']:6d} {cells}")
    lines += ["", f"{'shares':28} {'of':>6} {'share':>9} {'low':>9} {'high':>9}"]
    for name, found in document["shares"].items():
        cells = " ".join(f"{found.get(key, float('nan')):9.4g}" for key in ("share", "low", "high"))
        lines.append(f"{name:28} {found['count']:6d} {cells}")
    return "\n".join(lines)


def rounded(value: float) -> float:
    """Four digits: more than that no recording repeats."""
    return float(f"{value:.4g}")
