"""Renders the tables of ``ledger/README.md`` from the code.

``python -m tests.unit.ledger.ledger_tables`` writes them into the README; a test compares them.
"""

import re
from pathlib import Path

from sparkle_ledger import entries, outcomes
from tests.unit.protocol.wire_tables import fields_text, tag

README = Path(__file__).parents[3] / "ledger" / "README.md"
STATES = dict(re.findall(r"^\d+ +(\w+) +(\S.*)$", entries.__doc__ or "", re.MULTILINE))
PARTS = [entries.Settled]


def tables() -> dict[str, str]:
    """Each table of the README by its name."""
    rows = [f"| {tag(one)} | {one.__name__} | {fields_text(one)} | {STATES[one.__name__]} |" for one in entries.KINDS]
    parts = [f"| {one.__name__} | {fields_text(one)} |" for one in PARTS]
    codes = [value for value in vars(outcomes).values() if isinstance(value, outcomes.Outcome)]
    reasons = [f"| `{one.code}` | {one.text} |" for one in codes]
    return {
        "entries": "\n".join(["| kind | name | fields in order | states |\n|---|---|---|---|", *rows]),
        "parts": "\n".join(["| part | fields in order |\n|---|---|", *parts]),
        "outcomes": "\n".join(["| code | of the entry |\n|---|---|", *reasons]),
    }


def shown(name: str, text: str) -> str:
    """The table of that name as the README has it."""
    found = re.search(rf"<!-- table: {name} -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    return found[1] if found else ""


def write() -> None:
    text = README.read_text(encoding="utf-8")
    for name, table in tables().items():
        start = f"<!-- table: {name} -->\n"
        text = re.sub(
            rf"{start}.*?\n?<!-- end -->", lambda _, s=start, t=table: f"{s}{t}\n<!-- end -->", text, flags=re.DOTALL
        )
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
