"""Renders the tables of ``protocol/README.md`` from the message types.

``python -m tests.unit.protocol.wire_tables`` writes them into the README; a test compares them.
"""

import re
from pathlib import Path
from typing import Any

import msgspec

from sparkle_protocol import facts, ledger_messages, messages, trust_messages
from sparkle_protocol.codec import Wire

README = Path(__file__).parents[3] / "protocol" / "README.md"

REQUESTS: dict[type[Wire], str] = {
    messages.LeaseRequest: "LeaseReply",
    messages.Report: "ReportReply",
    messages.Notice: "Ok",
    messages.Offer: "Ok",
    messages.PeersRequest: "PeersReply",
    messages.Here: "HereReply",
    messages.Push: "PushReply",
    messages.Beat: "BeatReply",
    messages.Compare: "CompareReply",
    messages.Fetch: "FetchReply",
    messages.Release: "Ok",
    messages.OutlineRequest: "OutlineReply",
    messages.TicketRequest: "TicketReply",
    messages.PieceRequest: "PieceReply",
    ledger_messages.HeadsRequest: "HeadsReply",
    ledger_messages.EntriesRequest: "EntriesReply",
    ledger_messages.LedgerPush: "HeadsReply",
    ledger_messages.ProofRequest: "ProofReply",
    trust_messages.KnownRequest: "KnownReply",
}
REPLIES: list[type[Wire]] = [
    messages.LeaseReply, messages.ReportReply, messages.PeersReply, messages.Ok, messages.Refusal,
    messages.HereReply,
    messages.PushReply, messages.BeatReply, messages.CompareReply, messages.FetchReply,
    messages.OutlineReply, messages.TicketReply, messages.PieceReply,
    ledger_messages.HeadsReply, ledger_messages.EntriesReply, ledger_messages.ProofReply,
    trust_messages.KnownReply,
]  # fmt: skip
PARTS: list[type[Wire]] = [
    messages.UnitEpoch, messages.Settled, messages.JobFacts, messages.TooLarge, messages.Heartbeat,
    messages.PeerRecord, messages.JobBeat, ledger_messages.Head, trust_messages.Known,
]  # fmt: skip
FACT_PARTS: list[type[Wire]] = [
    facts.Policy, facts.Resources, facts.Deadlines, facts.LeaseItem, facts.CommitItem, facts.RevealItem,
    facts.VerdictItem, facts.FailureItem, facts.SealItem,
]  # fmt: skip


def bound(low: float | None, high: float | None) -> str:
    return (
        f" {'' if low is None else number(low)}…{'' if high is None else number(high)}"
        if (low, high) != (None, None)
        else ""
    )


def number(value: float) -> str:
    if isinstance(value, int) and value > 9999 and value & (value - 1) == 0:
        return f"2^{value.bit_length() - 1}"
    if isinstance(value, int) and value > 9999 and (value + 1) & value == 0:
        return f"2^{value.bit_length()}−1"
    return f"{value:g}" if isinstance(value, float) else str(value)


def length(kind: Any) -> str:
    if kind.min_length == kind.max_length and kind.min_length is not None:
        return f" {kind.min_length}"
    return bound(kind.min_length, kind.max_length)


def type_text(kind: Any) -> str:
    """A wire type in a few words: lengths of bin are bytes, of str characters, of list items."""
    inspect = msgspec.inspect
    if isinstance(kind, inspect.IntType):
        high = kind.le if kind.le is not None else kind.lt - 1 if kind.lt is not None else None
        return f"int{bound(kind.ge, high)}"
    if isinstance(kind, inspect.FloatType):
        return f"float{bound(kind.ge, kind.le)}"
    if isinstance(kind, inspect.BoolType):
        return "bool"
    if isinstance(kind, inspect.BytesType):
        return f"bin{length(kind)}"
    if isinstance(kind, inspect.StrType):
        return kind.pattern.strip("^$()").replace("|", " or ") if kind.pattern else f"str{length(kind)}"
    if isinstance(kind, inspect.ListType | inspect.VarTupleType):
        return f"list{length(kind)} of ({type_text(kind.item_type)})"
    if isinstance(kind, inspect.DictType):
        return f"map of {type_text(kind.key_type)} to {type_text(kind.value_type)}"
    if isinstance(kind, inspect.NoneType):
        return "nil"
    if isinstance(kind, inspect.UnionType):
        return " or ".join(type_text(one) for one in kind.types)
    assert isinstance(kind, inspect.StructType)
    return kind.cls.__name__


def default_text(field: Any) -> str:
    if field.required:
        return ""
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return f" = {value!r}".replace("False", "false").replace("'", '"')


def fields_text(shape: type[Wire]) -> str:
    struct = msgspec.inspect.type_info(shape)
    assert isinstance(struct, msgspec.inspect.StructType)
    shown = [f"`{field.name}` {type_text(field.type)}{default_text(field)}" for field in struct.fields]
    return "<br>".join(shown) or "none"


def tag(shape: type[Wire]) -> int:
    found = shape.__struct_config__.tag
    assert isinstance(found, int)
    return found


def tables() -> dict[str, str]:
    """Each table of the README by its name."""
    requests = [f"| {tag(s)} | {s.__name__} | {fields_text(s)} | {reply} |" for s, reply in REQUESTS.items()]
    replies = [f"| {tag(s)} | {s.__name__} | {fields_text(s)} |" for s in REPLIES]
    stated = [f"| {tag(s)} | {s.__name__} | {fields_text(s)} |" for s in facts.KINDS]
    gossip = [f"| {messages.Announcement.__name__} | {fields_text(messages.Announcement)} |"]
    parts = [f"| {s.__name__} | {fields_text(s)} |" for s in PARTS]
    fact_parts = [f"| {s.__name__} | {fields_text(s)} |" for s in FACT_PARTS]
    three, two = "| kind | name | fields in order |\n|---|---|---|", "| name | fields in order |\n|---|---|"
    return {
        "requests": "\n".join(["| kind | request | fields in order | reply |\n|---|---|---|---|", *requests]),
        "replies": "\n".join([three, *replies]),
        "parts": "\n".join([two, *parts]),
        "facts": "\n".join([three, *stated]),
        "fact parts": "\n".join([two, *fact_parts]),
        "announcement": "\n".join([two, *gossip]),
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
