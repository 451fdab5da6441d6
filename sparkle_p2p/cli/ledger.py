"""``sparkle ledger``: audit and export of the copy in the home directory, beside a running node or without one."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sparkle_ledger import store
from sparkle_ledger.entries import EntryCodec
from sparkle_ledger.export import as_csv, as_json_lines, table
from sparkle_p2p.cli import output
from sparkle_p2p.cli.ledger_copy import Audited, audited, loaded, opened, verdict
from sparkle_p2p.cli.progress import WorkBar
from sparkle_p2p.cli.saving import check_writable
from sparkle_p2p.runtime.locate import home_path
from sparkle_protocol.errors import ConfigError

SHOWN = 20  # sentences of a kind; --json has the first thousand


def verify(arguments: argparse.Namespace) -> int:
    """Check everything; 1 if something is not as in an honest copy."""
    home, began = home_path(arguments.home, os.environ), time.monotonic()
    with opened(home, arguments.net) as db, WorkBar() as bar:
        found = audited(db, bar.show, deep=arguments.deep)
    seconds = time.monotonic() - began
    if arguments.json:
        output.print_json(_document(found, seconds))
    else:
        _print(found, seconds)
    if not found.ok:
        sys.stdout.flush()
        sys.stderr.write("sparkle: this copy of the ledger is damaged; move it away and the node gets it again\n")
    return 0 if found.ok else 1


def _document(found: Audited, seconds: float) -> dict[str, Any]:
    report = found.report
    return {
        "ok": found.ok,
        "verdict": verdict(found),
        "network": found.network,
        "genesis": found.genesis,
        "feeds": report.feeds,
        "accounts": found.accounts,
        "entries": report.entries,
        "signatures": report.signatures,
        "jobs": report.jobs,
        "executions": report.executions,
        "forks": found.forks,
        "sum_micro": report.sum_micro,
        "earned_micro": report.earned_micro,
        "final_price_micro": report.final_price_micro,
        "unsettled_micro": report.unsettled_micro,
        "outcomes": dict(report.outcomes),
        "violations": [{"code": code, "sentence": text} for code, text in found.violations],
        "violation_count": found.violation_count,
        "misdeeds": report.misdeeds,
        "unseen": report.unseen,
        "unseen_count": report.unseen_count,
        "seconds": round(seconds, 3),
    }


def _print(found: Audited, seconds: float) -> None:
    report = found.report
    print(verdict(found))
    signed = output.many(report.signatures, "signature")
    print(f"  network '{output.clean(found.network)}': {output.many(report.feeds, 'feed')}, {signed} verified, "
          f"{output.many(report.jobs, 'job')}, {output.many(found.forks, 'proven fork')}, "
          f"genesis {found.genesis}, {output.duration(seconds)}")  # fmt: skip
    others = {code: count for code, count in report.outcomes.items() if code != "booked"}
    if others:
        told = ", ".join(f"{count} {code}" for code, count in others.items())
        print(f"  {output.many(report.outcomes.get('booked', 0), 'entry', 'entries')} count, the others are {told}")
    violations = [f"{code}: {text}" for code, text in found.violations]
    _print_list("Violations", violations, found.violation_count)
    _print_list("Against the rules, by its author, so that it does not count", report.misdeeds, len(report.misdeeds))
    _print_list("What this copy cannot know", report.unseen, report.unseen_count)


def _print_list(title: str, texts: list[str], count: int) -> None:
    if not count:
        return
    print(f"{title}:")
    for text in texts[:SHOWN]:
        print(f"  {output.clean(text)}")
    if count > SHOWN:
        print(f"  … and {count - SHOWN} more; --json lists {min(count, len(texts))}")


# --- export -------------------------------------------------------------------------------------------------


def export(arguments: argparse.Namespace) -> int:
    """Write a row for each entry."""
    as_json = arguments.format == "json" or (arguments.json and arguments.format is None)
    if arguments.json and arguments.format == "csv":
        raise ConfigError("--json and --format csv contradict each other; leave one out")
    target = None if arguments.out in (None, "-") else arguments.out
    check_writable(target)
    wanted = target is not None or not sys.stdout.isatty()  # or the bar would stand between the rows
    with opened(home_path(arguments.home, os.environ), arguments.net) as db, WorkBar(wanted=wanted) as bar:
        book = loaded(db, bar.show)
        rows = table(book, store.load(db, EntryCodec(book.network)))
        lines = _counted(as_json_lines(rows) if as_json else as_csv(rows), store.count(db), bar)
        if target is None:
            sys.stdout.writelines(lines)
        else:
            size = _write(Path(target), lines)
    if target is not None:
        sys.stderr.write(f"wrote {target} ({output.size(size)})\n")
    return 0


def _counted(lines: Iterable[str], whole: int, bar: WorkBar) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield line
        if not number % 1000:
            bar.show("writing", number, whole)


def _write(path: Path, lines: Iterable[str]) -> int:
    """Write a file that is there as a whole or not at all; its size."""
    try:
        with _replacing(path) as temporary:
            with open(temporary, "w", encoding="utf-8", newline="") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            return temporary.stat().st_size
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A new file beside ``path`` that takes its place at the end, and is gone after any failure."""
    mode = 0o666 & ~_umask()
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:64]}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else mode)
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
