"""A large blob between two processes, against the same bytes over plain aiohttp TLS."""

import os
from pathlib import Path
from typing import Any

from tests.bench.processes import Child, cpu_s, module, scratch, warm_memory
from tests.bench.rows import Row, median_row

BLOB_BYTES = 256 << 20
MB = BLOB_BYTES / 1e6
AGAINST = "plain aiohttp TLS, file to file, nothing checked"


def bulk(repeat: int) -> list[Row]:
    """Rate of a blob that is asked for, checked, written and synced; and processor time of both ends."""
    with scratch() as folder:
        path = folder / "content"
        path.write_bytes(os.urandom(BLOB_BYTES))
        for name in ("holder", "asker"):
            (folder / name).mkdir()
        with (
            module("bulk_peer", folder / "holder.log", str(folder / "holder")) as holder,
            module("bulk_peer", folder / "asker.log", str(folder / "asker")) as asker,
        ):
            return _rows(_Pair(holder, asker, folder), path, repeat)


class _Pair:
    """Both ends."""

    def __init__(self, holder: Child, asker: Child, folder: Path) -> None:
        self.holder = holder
        self.asker = asker
        self.folder = folder
        where = holder.read()
        asker.read()
        self.sources = {where["peer"]: where["port"]}

    def measure(self, question: dict[str, Any]) -> tuple[float, float, float]:
        """MB/s, and CPU-ms per MB of the receiving and of the sending end."""
        warm_memory(self.folder, BLOB_BYTES)
        before = cpu_s(self.holder.process.pid)
        answer = self.asker.ask(question)
        sent = cpu_s(self.holder.process.pid) - before
        return MB / answer["took_s"], answer["cpu_s"] * 1e3 / MB, sent * 1e3 / MB


def _rows(pair: _Pair, path: Path, repeat: int) -> list[Row]:
    blob = pair.holder.ask({"put": str(path)})["blob"]
    port = pair.holder.ask({"serve": str(path)})["port"]
    ours, to_file, to_nowhere = [], [], []
    for round_ in range(repeat + 1):
        copy = pair.folder / "copy"
        found = (
            pair.measure({"fetch": blob, "from": pair.sources}),
            pair.measure({"read": port, "into": str(copy)}),
            pair.measure({"read": port, "into": ""}),
        )
        copy.unlink()
        if round_:  # the first one loads and connects
            for rows, row in zip((ours, to_file, to_nowhere), found, strict=True):
                rows.append(row)

    def column(rows: list[tuple[float, float, float]], index: int) -> list[float]:
        return [row[index] for row in rows]

    bare = "plain aiohttp TLS, thrown away on arrival"
    return [
        median_row(
            "bulk_blob", "MB/s", column(ours, 0), column(to_file, 0),
            bar=0.8, stretch=0.95, judged="ratio", against=AGAINST, at_least=True,
        ),
        median_row("bulk_blob_bare", "MB/s", column(ours, 0), column(to_nowhere, 0), against=bare, at_least=True),
        median_row("bulk_asker_cpu", "CPU ms/MB", column(ours, 1), column(to_file, 1), against=AGAINST),
        median_row("bulk_holder_cpu", "CPU ms/MB", column(ours, 2), column(to_file, 2), against=AGAINST),
    ]  # fmt: skip
