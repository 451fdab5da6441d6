"""Commands that look: status, peers, kernels, jobs, job, why; and the two switches pause and resume."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sparkle_p2p.api.client import LocalClient
from sparkle_p2p.cli import output
from sparkle_p2p.runtime.locate import home_path
from sparkle_protocol.errors import SparkleError


def client_of(arguments: argparse.Namespace) -> LocalClient:
    """The client of the node that the command line means."""
    return LocalClient(home_path(arguments.home, os.environ))


def status(arguments: argparse.Namespace) -> int:
    """This node: state with reason, network, work, load."""
    document = client_of(arguments).status()
    if arguments.json:
        output.print_json(document)
    else:
        _print_status(document)
    return 0


def _print_status(document: dict[str, Any]) -> None:
    state = output.paint_state(document["state"], enabled=output.wants_colour(sys.stdout))
    print(f"{state}: {output.clean(document['reason']['sentence'])}")
    peers = output.many(document["peers"], "peer")
    done, accepted = document["units_done"], document["units_verified"]
    private = f" (private, key {document['network_key']})" if document.get("private") else ""
    genesis = f", genesis {document['genesis']}" if document.get("genesis") else ""
    rows = [
        ("peer id", document["peer_id"]),
        ("network", f"{document['net']}{private}{genesis}: {document['network']}, {peers}"),
        ("safety", document["safety"]["sentence"]),
        ("workers", f"{document.get('known_workers', 0)} known by their work here"),
        ("units", f"{document['units_running']} running, {done} computed, {accepted} accepted"),
        ("credit", f"{document['credit_micro'] / 1e6:.6f}"),
        ("load", f"{document['cpu_percent']:.1f} % CPU, {output.size(document['pss_bytes'])} memory"),
        *(("warning", text) for text in document.get("missing_protections", ())),
        ("up", output.duration(document["uptime_s"])),
        *(("address", address) for address in document["addresses"]),
        ("api", document["api"] or "–"),
    ]
    for name, value in rows:
        print(f"  {name:8} {output.clean(value)}")


def peers(arguments: argparse.Namespace) -> int:
    """Connected peers with latency and what their work was worth."""
    rows = client_of(arguments).peers()
    if arguments.json:
        output.print_json(rows)
        return 0
    if not rows:
        print("no peers are connected; start another node with --bootstrap and an address of this one")
        return 0
    output.print_table(
        ("PEER", "ADDRESS", "WAY", "LATENCY", "CONNECTED", "ACCEPTED", "REJECTED", "STANDING"),
        [
            (
                output.short_peer(row["peer_id"]),
                row["addresses"][0].partition("/p2p/")[0] if row["addresses"] else "–",
                row["direction"],
                "–" if row["latency_ms"] is None else f"{row['latency_ms']:.1f} ms",
                output.duration(row["connected_s"]),
                row["units_accepted"],
                row["units_rejected"],
                row["standing"],
            )
            for row in rows
        ],
        right=(3, 5, 6),
    )
    return 0


def kernels(arguments: argparse.Namespace) -> int:
    """Kernels with parameters, cost and verification class."""
    rows = client_of(arguments).kernels()
    if arguments.json:
        output.print_json(rows)
        return 0
    colour = output.wants_colour(sys.stdout)
    for position, row in enumerate(rows):
        if position:
            print()
        name = output.paint(f"{row['name']}@{row['version']}", "bold", enabled=colour)
        print(f"{name}  {output.clean(row['summary'])}")
        width = max((len(parameter) for parameter in row["params"]), default=0)
        for parameter, meaning in row["params"].items():
            print(f"  {parameter:{width}}  {output.clean(meaning)}")
        for name, meaning in row["inputs"].items():
            print(f"  --input {name}  {output.clean(meaning)}")
        print(f"  verification: {row['verification']}; cost: {output.clean(row['cost'])}")
        if row["error"]:
            print(f"  error: at most {output.clean(row['error'])}")
        print(f"  {output.paint(output.clean(row['example']), 'dim', enabled=colour)}")
    return 0


def jobs(arguments: argparse.Namespace) -> int:
    """The jobs of this node, newest first."""
    rows = client_of(arguments).jobs()
    if arguments.json:
        output.print_json(rows)
        return 0
    if not rows:
        print("no jobs yet; 'sparkle kernels' shows what can be submitted")
        return 0
    output.print_table(
        ("JOB", "KERNEL", "STATE", "UNITS", "REJECTED", "PEERS", "AGE", "LEFT"),
        [
            (
                output.short_job(row["job"]),
                row["kernel"],
                row["state"],
                f"{row['units']['final'] + row['units']['provisional']}/{row['units']['total']}",
                row["rejected"],
                len(row["workers"]),
                output.duration(row["age_s"]),
                output.duration(row["eta_s"]) if row["state"] in ("queued", "running") else "",
            )
            for row in rows
        ],
        right=(3, 4, 5),
    )
    return 0


def job(arguments: argparse.Namespace) -> int:
    """One job in full."""
    document = client_of(arguments).job(arguments.job)
    if arguments.json:
        output.print_json(document)
    else:
        _print_job(document)
    return 0


def _print_job(document: dict[str, Any]) -> None:
    state = output.paint_state(document["state"], enabled=output.wants_colour(sys.stdout))
    units = document["units"]
    counts = ", ".join(f"{units[name]} {name}" for name in units if name != "total" and units[name])
    parameters = " ".join(f"{name}={value}" for name, value in document["params"].items())
    each = f" ({document['replicas'] / units['total']:.2f} per unit)" if document["state"] == "done" else ""
    print(f"{document['job']}: {state}")
    rows = [
        ("kernel", f"{document['kernel']} {parameters}"),
        ("verify", document["verify"]),
        ("units", f"{units['total']}: {counts}"),
        ("work", f"{output.many(document['replicas'], 'execution')}{each}, {document['rejected']} rejected"),
        ("age", output.duration(document["age_s"])),
    ]
    if document["state"] in ("queued", "running"):
        rows.append(("left", eta_text(document["eta"], document["job"])))
        rows.append(("kept by", output.many(len(document["keepers"]), "node")))
    for peer, count in sorted(document["workers"].items(), key=lambda pair: (-pair[1], pair[0])):
        rows.append(("peer", f"{peer}  {output.many(count, 'unit')} accepted"))
    for rejection in document["rejections"]:
        sentence = rejection["reason"]["sentence"]
        rows.append(("rejected", f"unit {rejection['unit']} of {rejection['worker']}: {sentence}"))
    if document["error"]:
        rows.append(("error", document["error"]))
    if document["state"] == "done":
        rows.append(("result", result_text(document["result"])))
    for name, value in rows:
        print(f"  {name:8} {output.clean(value)}")


def eta_text(eta: dict[str, float] | None, job: str) -> str:
    """How long something will probably take, and how sure that is."""
    if eta is None:
        return f"nobody can tell yet; 'sparkle why {output.short_job(job)}' says why"
    low, high = output.duration(eta["low_s"]), output.duration(eta["high_s"])
    return f"about {output.duration(eta['finish_s'])} ({low} to {high})"


def _number_in(value: Mapping[str, Any]) -> str:
    """What an array without axes holds; while its file cannot be read, that it is such a one."""
    from sparkle_p2p.api.arrays import load_array

    try:
        return str(load_array(value)[()])
    except SparkleError:
        return "scalar"


def result_text(value: Any) -> str:
    """A result on one line."""
    if isinstance(value, dict) and value.keys() == {"dtype", "shape", "path"}:
        shape = " x ".join(map(str, value["shape"])) or _number_in(value)
        return f"{value['dtype']} {shape}, in {value['path']}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {content}" for name, content in value.items())
    return str(value)


def why(arguments: argparse.Namespace) -> int:
    """The reason with its numbers."""
    document = client_of(arguments).why(arguments.subject)
    if arguments.json:
        output.print_json(document)
        return 0
    for indent, reason in [("", document["headline"]), *(("  ", detail) for detail in document["details"])]:
        print(f"{indent}{output.clean(reason['sentence'])}")
        if reason["numbers"]:
            text = f"{indent}  {output.numbers(reason['numbers'])}"
            print(output.paint(text, "dim", enabled=output.wants_colour(sys.stdout)))
    for line in timeline_lines(document.get("timeline") or ()):
        print(line)
    return 0


def timeline_lines(moments: Sequence[Mapping[str, Any]]) -> list[str]:
    """What happened, with times of this machine's zone: "14:03:10–14:03:41  sentence", a line for every new day."""
    lines, day = [], ""
    for moment in moments:
        began, ended = (datetime.fromtimestamp(moment[name]).astimezone() for name in ("time", "until"))
        if day != (day := began.strftime("%Y-%m-%d")):
            lines.append(day)
        when = began.strftime("%H:%M:%S")
        if ended.date() != began.date():
            when += ended.strftime("–%Y-%m-%d %H:%M:%S")
        elif int(moment["until"]) != int(moment["time"]):
            when += ended.strftime("–%H:%M:%S")
        lines.append(f"  {when:17}  {output.clean(moment['reason']['sentence'])}")
    return lines


def pause(arguments: argparse.Namespace) -> int:
    """Stop computing at once."""
    return _switch(arguments, client_of(arguments).pause())


def resume(arguments: argparse.Namespace) -> int:
    """Compute again."""
    return _switch(arguments, client_of(arguments).resume())


def _switch(arguments: argparse.Namespace, document: dict[str, Any]) -> int:
    if arguments.json:
        output.print_json(document)
    else:
        print(f"{document['state']}: {output.clean(document['reason']['sentence'])}")
    return 0
