"""Commands that make and end work: submit, wait, result, cancel, dead."""

import argparse
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sparkle_p2p.api.arrays import input_path
from sparkle_p2p.api.client import LocalClient
from sparkle_p2p.api.words import ending
from sparkle_p2p.cli import output
from sparkle_p2p.cli.progress import ProgressLine, follow
from sparkle_p2p.cli.saving import check_result, is_array, save, size_of
from sparkle_p2p.cli.show import client_of, result_text
from sparkle_p2p.runtime.program import INTERRUPTED
from sparkle_protocol.errors import ConfigError, SparkleError

PATIENT_S = 3.0  # without a word


def submit(arguments: argparse.Namespace) -> int:
    """Submit a job; with ``--wait`` follow it to its result."""
    params = parse_params(arguments.param)
    if arguments.output and not arguments.wait:
        raise ConfigError("-o needs --wait; without it, 'sparkle result ID -o FILE' fetches the result later")
    inputs = parse_inputs(arguments.input)
    check_result(arguments.output, for_array=bool(inputs))
    client = client_of(arguments)
    with _why_it_takes_long(client):
        job = client.submit(
            arguments.kernel, params, arguments.units, arguments.verify, inputs,
            free=arguments.free, sealed=arguments.sealed,
        )  # fmt: skip
    if not arguments.wait:
        if arguments.json:
            output.print_json({"job": job})
        else:
            print(job)
            _tell(f"follow it with 'sparkle wait {output.short_job(job)}'")
        return 0
    if not arguments.json:
        _tell(f"job {output.short_job(job)}")
    return _follow(client, job, arguments)


@contextmanager
def _why_it_takes_long(client: LocalClient) -> Iterator[None]:
    """Says after a while what a submission waits for, if it is the node's account."""

    def tell() -> None:
        with suppress(SparkleError):
            account = client.credit()
            if account["state"] == "learning":
                _tell(f"waiting: {account['reason']['sentence']}")

    timer = threading.Timer(PATIENT_S, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def wait(arguments: argparse.Namespace) -> int:
    """Wait until a job has ended."""
    arguments.output = None
    client = client_of(arguments)
    return _follow(client, client.job(arguments.job)["job"], arguments)


def _follow(client: LocalClient, job: str, arguments: argparse.Namespace) -> int:
    short = output.short_job(job)
    try:
        document = follow(client, job, ProgressLine())
    except KeyboardInterrupt:
        _tell(f"the job goes on; 'sparkle wait {short}' follows it, 'sparkle cancel {short}' ends it")
        return INTERRUPTED
    if document["state"] != "done":
        if arguments.json:
            output.print_json(document)
        _tell(f"sparkle: job {short} {ending(document)}; 'sparkle why {short}' explains it")
        return 1
    if arguments.output:
        save(client.result(job), arguments.output)
    if arguments.json and arguments.output != "-":
        output.print_json(document)
    elif not arguments.output:
        print(output.clean(result_text(document["result"])))
        with suppress(SparkleError):  # the result was shown
            _tell_of_file(client.result(job))
    return 0


def result(arguments: argparse.Namespace) -> int:
    """Fetch a result, into a file or onto stdout."""
    check_result(arguments.output)
    document = client_of(arguments).result(arguments.job)
    if arguments.output:
        save(document, arguments.output)
    if arguments.output == "-":
        return 0
    if arguments.json:
        size = size_of(document)
        del document["data"]
        output.print_json({**document, "size_bytes": size, "file": arguments.output})
    elif not arguments.output:
        print(output.clean(result_text(document["value"])))
        _tell_of_file(document)
    return 0


def _tell_of_file(document: dict[str, Any]) -> None:
    """How to get what a line cannot show."""
    short, kind = output.short_job(document["job"]), document["media_type"]
    if is_array(document):
        picture = "; a .png shows it, if it is a picture" if len(document["value"]["shape"]) > 1 else ""
        _tell(f"'sparkle result {short} -o result.npy' copies it{picture}")
    elif document["data"]:
        extension = kind.rpartition("/")[2]
        _tell(f"there is also a file ({kind}); 'sparkle result {short} -o result.{extension}' writes it")


def cancel(arguments: argparse.Namespace) -> int:
    """Cancel a job; one that has ended stays as it is."""
    document = client_of(arguments).cancel(arguments.job)
    if arguments.json:
        output.print_json(document)
    else:
        print(f"{output.short_job(document['job'])}: {document['state']}")
    return 0


def dead(arguments: argparse.Namespace) -> int:
    """List dead units with their evidence, or begin some anew."""
    if arguments.requeue is not None:
        return _requeue(arguments)
    units = client_of(arguments).dead(arguments.job)
    if arguments.json:
        output.print_json(units)
        return 0
    if not units:
        print("no unit is dead")
        return 0
    for unit in units:
        print(f"{output.short_job(unit['job'])}/{unit['unit']}  {output.clean(unit['reason']['sentence'])}")
        for attempt in unit["attempts"]:
            words = (output.short_peer(attempt["worker"]), attempt["code"], attempt["text"])
            print(f"  {output.clean('  '.join(words))}")
    job, index = output.short_job(units[0]["job"]), units[0]["unit"]
    _tell(f"'sparkle dead --requeue {job}' begins all of that job anew, '--requeue {job}/{index}' one unit")
    return 0


def _requeue(arguments: argparse.Namespace) -> int:
    if arguments.job is not None:
        raise ConfigError("name the job once: 'sparkle dead --requeue JOB' or 'sparkle dead --requeue JOB/INDEX'")
    job, slash, index = arguments.requeue.partition("/")
    if slash and not (index.isascii() and index.isdecimal()):
        raise ConfigError(f"'{arguments.requeue}' names no unit; write JOB/NUMBER")
    document = client_of(arguments).requeue(job, int(index) if slash else None)
    if arguments.json:
        output.print_json(document)
    else:
        again = output.many(len(document["units"]), "unit")
        print(f"{output.short_job(document['job'])}: {document['state']}, {again} begun anew")
    return 0


def parse_params(texts: list[str]) -> dict[str, str]:
    """Parameters from ``name=value`` texts; their types are the kernel's business.

    Raises:
        ConfigError: one is malformed or given twice.
    """
    return _pairs(texts, "-p {}", "parameter", "-p name=value")


def parse_inputs(texts: list[str]) -> dict[str, str]:
    """Absolute paths of arrays from ``name=file`` texts.

    Raises:
        ConfigError: one is malformed, given twice, or names no file.
    """
    files = _pairs(texts, "--input {}", "input", "--input name=file")
    return {name: input_path(name, file) for name, file in files.items()}


def _pairs(texts: list[str], shown: str, noun: str, form: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name:
            raise ConfigError(f"'{shown.format(text)}' is no {noun}; write it as {form}")
        if name in found:
            raise ConfigError(f"the {noun} '{name}' is given twice")
        found[name] = value
    return found


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")
