"""Renders the tables of ``docs/reference/sparkle-sim.md`` from the types of a scenario.

``python -m tests.unit.sim.scenario_tables`` writes them into the page; a test compares them. What a key means is the
comment behind it in ``scenario.py``.
"""

import inspect
import io
import re
import tokenize
from pathlib import Path
from typing import get_args, get_origin

import msgspec

from sparkle_sim import scenario
from sparkle_sim.expected import expected, shown, struct_fields

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "sparkle-sim.md"
TABLES: dict[str, type[scenario.Part]] = {
    "": scenario.Scenario,
    "[peers]": scenario.Peers,
    "[peers.machines]": scenario.Machines,
    "[peers.churn]": scenario.Churn,
    "[peers.schedule]": scenario.Schedule,
    "[wires]": scenario.Wires,
    "[[wires.regions]]": scenario.Region,
    "[[wires.distances]]": scenario.Distance,
    "[[jobs]]": scenario.JobPlan,
    "[[faults]]": scenario.Fault,
    "[[adversaries]]": scenario.Adversaries,
    "[credit]": scenario.Credit,
    "[trust]": scenario.Trust,
    "[checks]": scenario.Checks,
}
MARK = "<!-- keys: {} -->"


def meanings(part: type[scenario.Part]) -> dict[str, str]:
    """The comment behind each key of a table."""
    found, names = {}, struct_fields(part)
    line: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(part)).readline):
        if token.type == tokenize.COMMENT and line and line[0] in names:
            found[line[0]] = token.string.removeprefix("#").strip()
        elif token.type in (tokenize.NEWLINE, tokenize.NL):
            line = []
        elif token.type == tokenize.NAME:
            line.append(token.string)
    return found


def is_table(annotation: object) -> bool:
    """Whether a key holds a table, or a list of them, which stand by themselves."""
    item = get_args(annotation)[0] if get_origin(annotation) is list else annotation
    return isinstance(item, type) and issubclass(item, scenario.Part)


def default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "must be given"
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    return "none" if value in ("", []) else f"`{shown(value)}`"


def rendered(part: type[scenario.Part]) -> str:
    """A table of the page."""
    said = meanings(part)
    lines = ["| key | what | value | default |", "|---|---|---|---|"]
    for name, field in struct_fields(part).items():
        if not is_table(field.type):
            what = said[name].replace("``", "`")
            lines.append(f"| `{name}` | {what} | {expected(field.type)} | {default(field)} |")
    return "\n".join(lines)


def with_tables(page: str) -> str:
    """The page with every table as it is now."""
    for name, part in TABLES.items():
        mark = MARK.format(name or "top")
        before, found, after = page.partition(f"{mark}\n\n")
        assert found, f"{PAGE.name} has no place {mark}"
        page = before + found + rendered(part) + "\n" + re.sub(r"\A(\|[^\n]*\n)*", "", after)
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
