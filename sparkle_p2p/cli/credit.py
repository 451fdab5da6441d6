"""``sparkle credit``: an account's balance, where it came from, what is held, pending or refused, and a chart."""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sparkle_p2p.balance_chart import chart, times
from sparkle_p2p.cli import output
from sparkle_p2p.cli.saving import check_writable
from sparkle_p2p.cli.show import client_of
from sparkle_protocol.work.price import core_time, exactly

CHART_ROWS, CHART_COLUMNS, LEAST_COLUMNS = 8, 72, 8
SHOWN = 10  # rows of a list; --json has more
ACCOUNT_SHOWN = 12

Document = Mapping[str, Any]


def credit(arguments: argparse.Namespace) -> int:
    """An account's credit."""
    if arguments.plot is not None:
        from sparkle_p2p.cli.credit_plot import check_plottable

        check_writable(arguments.plot)
        check_plottable(arguments.plot)
    document = client_of(arguments).credit(arguments.account)
    if arguments.json:
        output.print_json(document)
    else:
        for line in lines(document, shutil.get_terminal_size().columns):
            print(line)
    if arguments.plot is not None:
        from sparkle_p2p.cli.credit_plot import plot

        plot(document, arguments.plot)
        sys.stderr.write(f"wrote {arguments.plot}\n")
    return 0


def lines(document: Document, width: int) -> list[str]:
    """The account in words, in rows of at most ``width`` characters where that can be."""
    who = "this node" if document["own"] else output.short_peer(document["peer_id"]) or "key not known"
    balance = document["balance_micro"]
    drawn = [f"{exactly(balance)} credits" + (f", {core_time(abs(balance))} of a laptop core" if balance else "")]
    drawn += [f"  {name:9} {value}" for name, value in _rows(document, who)]
    drawn += _chart(document, width)
    drawn += _table("Partners", document["partners"], document["partner_count"], _PARTNERS, _partner)
    drawn += _table("Set aside for jobs", document["escrows"], document["escrow_count"], _ESCROWS, _escrow)
    drawn += _entries("Does not count yet", document["pending"], document["pending_count"])
    drawn += _entries("Does not count", document["void"], document["void_count"])
    return drawn + _forks(document)


def _rows(document: Document, who: str) -> list[tuple[str, str]]:
    amounts = {name: exactly(document[f"{name}_micro"]) for name in ("earned", "spent", "held", "balance")}
    wide = max(map(len, amounts.values()))
    told = {name: amount.rjust(wide) for name, amount in amounts.items()}
    limit = "none" if document["unlimited"] else exactly(document["limit_micro"]).rjust(wide)
    held_for = output.many(document["escrow_count"], "job")
    rows = [
        ("account", f"{document['account']} ({output.clean(who)})"),
        ("state", output.clean(document["reason"]["sentence"])),
        ("earned", told["earned"]),
        ("spent", told["spent"]),
        ("held", told["held"] + (f"  set aside for {held_for}" if document["held_micro"] else "")),
        ("balance", f"{told['balance']}  earned - spent - held"),
        ("limit", f"{limit}  as far below zero the balance may go"),
        ("can spend", f"{exactly(document['spendable_micro']).rjust(wide)}  on new jobs now"),
    ]
    if document["pending_micro"]:
        rows.append(("pending", f"{exactly(document['pending_micro']).rjust(wide)}  pay that does not count yet"))
    return rows


# --- parts ------------------------------------------------------------------------------------------------------


def _chart(document: Document, width: int) -> list[str]:
    points = [(point["time_ms"], point["balance_micro"]) for point in document["history"]]
    labels = [exactly(balance) for _, balance in points]
    margin = max(map(len, labels), default=0) + 2
    columns = min(CHART_COLUMNS, width - 2 - margin - 1)
    drawn = chart(points, columns, CHART_ROWS) if columns >= LEAST_COLUMNS else None
    if drawn is None:
        return []
    first, last = times(drawn)
    rows = []
    for number, row in enumerate(drawn.rows):
        label = {0: drawn.top_micro, len(drawn.rows) - 1: drawn.bottom_micro}.get(number)
        if drawn.top_micro == drawn.bottom_micro and number:
            label = None
        rows.append(f"  {'' if label is None else exactly(label):>{margin - 2}} │{row}".rstrip())
    return ["", *rows, f"  {'':{margin - 2}}  {first}{last:>{max(0, columns - len(first))}}".rstrip()]


_PARTNERS = ("PARTNER", "ACCOUNT", "EARNED FROM IT", "SPENT ON IT")
_ESCROWS = ("JOB", "IN ESCROW", "PAID", "STILL OWED", "ENDED")


def _partner(row: Document) -> tuple[str, ...]:
    peer = output.short_peer(row["peer_id"]) if row["peer_id"] else "–"
    return peer, row["account"][:ACCOUNT_SHOWN], exactly(row["earned_micro"]), exactly(row["spent_micro"])


def _escrow(row: Document) -> tuple[str, ...]:
    owed = "–" if row["owed_micro"] is None else exactly(row["owed_micro"])
    ended = "yes" if row["over"] else "no"
    return output.short_job(row["job"]), exactly(row["left_micro"]), exactly(row["paid_micro"]), owed, ended


def _table(title: str, rows: Sequence[Document], count: int, heads: Sequence[str], cells: Any) -> list[str]:
    if not rows:
        return []
    right = [place for place, head in enumerate(heads) if head not in ("PARTNER", "ACCOUNT", "JOB", "ENDED")]
    body = output.table(heads, [cells(row) for row in rows[:SHOWN]], right=right)
    return ["", f"{title}:", *(f"  {line}" for line in body), *_more(count, len(rows))]


def _entries(title: str, rows: Sequence[Document], count: int) -> list[str]:
    if not rows:
        return []
    drawn = ["", f"{title}:"]
    for row in rows[:SHOWN]:
        what = f"{row['kind']} of {exactly(row['stated_micro'])}" if row["stated_micro"] else row["kind"]
        job = f" for job {output.short_job(row['job'])}" if row["job"] else ""
        again = f" (begun again {row['incarnation']} times)" if row["incarnation"] else ""
        drawn.append(f"  entry {row['seq']}{again}: {what}{job}: {row['sentence']} ({row['outcome']})")
    return [*map(output.clean, drawn), *_more(count, len(rows))]


def _forks(document: Document) -> list[str]:
    rows = document["forks"]
    if not rows:
        return []
    drawn = ["", "Accounts that signed two entries for one place, so that they can spend no more:"]
    for row in rows[:SHOWN]:
        own = "this account" if row["account"] == document["account"] else row["account"][:ACCOUNT_SHOWN]
        when = _day(row["time_ms"])
        drawn.append(f"  {own} ({output.short_peer(row['peer_id'])}) at entry {row['seq']}{when}")
    return [*map(output.clean, drawn), *_more(document["fork_count"], len(rows))]


def _day(time_ms: int) -> str:
    try:
        return datetime.fromtimestamp(time_ms / 1000).astimezone().strftime(", %Y-%m-%d %H:%M") if time_ms else ""
    except (ValueError, OverflowError, OSError):  # what a stranger's clock said
        return ""


def _more(count: int, listed: int) -> list[str]:
    return [f"  … and {count - SHOWN} more; --json lists {listed}"] if count > SHOWN else []
