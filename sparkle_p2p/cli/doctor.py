"""``sparkle doctor``: what blocks this node, and how to fix it; with a running node and without one."""

import argparse
import dataclasses
import os
import sys
from pathlib import Path

import msgspec

from sparkle_p2p.api.client import LocalClient
from sparkle_p2p.cli import output
from sparkle_p2p.cli.local_checks import check_machine
from sparkle_p2p.runtime.locate import find_node, home_path, is_locked
from sparkle_p2p.view import Finding, Reason
from sparkle_protocol.errors import ConfigError, NodeNotRunning, SparkleError

_COLOURS = {"ok": "good", "warn": "warn", "fail": "bad"}


def doctor(arguments: argparse.Namespace) -> int:
    """One line for each check, with what to do where that is due; 1 if any fails."""
    home = home_path(arguments.home, os.environ)
    running = _is_running(home)
    findings = [*(_of_node(home) if running else [_not_running(home)]), *check_machine(Path(home), running=running)]
    failed = sum(finding.level == "fail" for finding in findings)
    if arguments.json:
        document = {"ok": not failed, "running": running, "findings": [dataclasses.asdict(one) for one in findings]}
        output.print_json(document)
    else:
        _print(findings)
    if failed:
        sys.stderr.write(f"{output.many(failed, 'check')} failed\n")
    return 1 if failed else 0


def _print(findings: list[Finding]) -> None:
    colour = output.wants_colour(sys.stdout)
    for finding in findings:
        level = output.paint(f"{finding.level:4}", _COLOURS[finding.level], enabled=colour)
        print(f"{level}  {finding.check:12}  {output.clean(finding.reason.sentence)}")
        if finding.fix and finding.level != "ok":
            print(f"{'':20}{output.paint('fix: ', 'dim', enabled=colour)}{output.clean(finding.fix)}")


def _is_running(home: str) -> bool:
    try:
        return is_locked(home)
    except ConfigError:
        return False  # the checks of the directory say what is wrong with it


def _not_running(home: str) -> Finding:
    reason = Reason("not_running", f"No node runs in {home}; what only a running one can tell is left out.")
    return Finding("node", "ok", reason)


def _of_node(home: str) -> list[Finding]:
    """What the running node found."""
    try:
        node = find_node(home)
        found = msgspec.convert(LocalClient(home).checkup(), list[Finding])
    except (SparkleError, msgspec.ValidationError) as error:
        old = isinstance(error, msgspec.ValidationError)
        said = "The running node is of another version." if old else f"{str(error)[0].upper()}{str(error)[1:]}."
        fix = "Look at its log; if it stays like this, stop it and start it again."
        level: Finding = Finding("node", "fail", Reason("node_silent", said), fix)
        return [dataclasses.replace(level, level="warn") if isinstance(error, NodeNotRunning) else level]
    return [Finding("node", "ok", Reason("running", f"A node runs in {home} (process {node.pid}).")), *found]
