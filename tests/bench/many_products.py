"""64 products of 1024² through two workers, and where the processor time goes, against a plain loop.

One job: the product of 8192 x 1024 by 1024 x 8192, of which each of 64 units is a block of 1024 x 1024. The submitter
computes nothing; two peers do, and every result is checked. The plain loop (``plain_loop.py``) does the same 64
products in two processes with one BLAS thread each: a third one gives each of them the panels that it needs, once,
over aiohttp TLS, and takes the blocks back the same way. Processor time is that of all processes.
"""

import contextlib
import secrets
from collections.abc import Mapping
from pathlib import Path

from sparkle_p2p.api.client import LocalClient
from tests.bench.plain_loop import GRID, SIZE
from tests.bench.processes import LOOPBACK, Child, cpu_s, module, own_cpu_s, scratch
from tests.bench.product import check_rows, run_product, save
from tests.bench.rows import Row, median_row
from tests.bench.spent import KINDS
from tests.bench.timed_kernels import kernel_seconds

UNITS = GRID * GRID
WORKERS = 2
AT_MOST = 5  # repetitions
AGAINST = "a plain loop of two processes, data moved over aiohttp TLS"
COMPARED = {"compute": "compute", "transfer": "rest"}  # parts, and what does the same in the loop
PARTS = ("compute", "hand_over", "hash", "sign", "check", "transfer", "store", "rest")

Spent = Mapping[str, float]


def many_products(repeat: int) -> list[Row]:
    """Processor seconds in all and by kind, and how long it took."""
    ours: list[Spent] = []
    bare: list[Spent] = []
    with scratch() as folder:
        paths = save(folder, GRID * SIZE, SIZE, GRID * SIZE)
        with _Peers(folder) as peers, _Loop(folder, paths) as loop:
            peers.run(save(folder, SIZE, SIZE, SIZE), 4)
            loop.run()
            for _ in range(min(repeat, AT_MOST)):
                ours.append(peers.run(save(folder, GRID * SIZE, SIZE, GRID * SIZE), UNITS))
                bare.append(loop.run())
    return [
        _row("gemm_64", ours, bare, "all", "all", bar=1.6, stretch=1.35),
        _row("gemm_64_wall", ours, bare, "wall", "wall"),
        *(_row(f"gemm_64_{part}", ours, bare, part, COMPARED.get(part, "")) for part in PARTS),
    ]


def _row(
    name: str,
    ours: list[Spent],
    bare: list[Spent],
    part: str,
    compared: str,
    bar: float | None = None,
    stretch: float | None = None,
) -> Row:
    """A part of ours beside what it is compared with in the plain loop, if anything."""
    unit = "s" if part == "wall" else "CPU s"
    return median_row(
        name,
        unit,
        [run[part] for run in ours],
        [run[compared] for run in bare] if compared else (),
        bar=bar,
        stretch=stretch,
        judged="value" if bar is None else "ratio",
        against=f"{AGAINST}{', all but the products' if compared == 'rest' else ''}" if compared else "",
    )


class _Peers:
    """A submitter that does not compute, and two that do; each says what it spent on what."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seconds = folder / "kernel-seconds"
        self._left = contextlib.ExitStack()
        self._nodes: list[Child] = []

    def __enter__(self) -> "_Peers":
        net = f"bench-{secrets.token_hex(4)}"
        self._seconds.touch()
        bootstrap: list[str] = []
        with contextlib.ExitStack() as left:
            for number in range(1 + WORKERS):
                home = self._folder / f"node-{number}"
                flags = ["--no-work"] if number == 0 else []
                fixed = ["--headless", "--json", "--listen", LOOPBACK, "--home", str(home), "--net", net, "--no-mdns"]
                command = [str(self._seconds), *fixed, *flags, *bootstrap]
                node = left.enter_context(module("timed_node", home.with_suffix(".log"), *command))
                bootstrap = bootstrap or ["--bootstrap", node.read()["addrs"][0]]
                self._nodes.append(node)
            for node in self._nodes[1:]:
                node.read()
            self._left = left.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.close()

    def run(self, paths: dict[str, str], units: int) -> Spent:
        """Processor seconds of a job by kind; raises RuntimeError if it was not what is to be measured."""
        before = self._spent()
        wall, result = run_product(LocalClient(self._folder / "node-0"), paths, units)
        after = self._spent()
        check_rows(paths, result)
        result.unlink()
        return {"wall": wall, **{name: after[name] - before[name] for name in after}}

    def _spent(self) -> Spent:
        documents = [_spent_by(node) for node in self._nodes]
        own = [own_cpu_s(node.process.pid) for node in self._nodes]
        everything = [cpu_s(node.process.pid) for node in self._nodes]
        of_kinds = {kind: sum(document["spent"].get(kind, 0.0) for document in documents) for kind in KINDS}
        compute = kernel_seconds(self._seconds)
        return {
            **of_kinds,
            "all": sum(everything),
            "compute": compute,
            "hand_over": sum(everything[1:]) - sum(own[1:]) - compute,  # of the worker processes, beside their kernel
            "check": everything[0] - own[0],  # the submitter's only other process
            "rest": sum(own) - sum(of_kinds.values()),
        }


def _spent_by(node: Child) -> dict[str, dict[str, float]]:
    document = node.ask("spent")
    while "spent" not in document:  # events of the node come between
        document = node.read()
    return document


class _Loop:
    """The owner and two workers."""

    def __init__(self, folder: Path, paths: dict[str, str]) -> None:
        self._folder = folder
        self._arguments = [paths["a"], paths["b"], str(folder / "product.npy")]
        self._left = contextlib.ExitStack()

    def __enter__(self) -> "_Loop":
        with contextlib.ExitStack() as left:
            self._owner = left.enter_context(
                module("plain_loop", self._folder / "owner.log", "owner", *self._arguments)
            )
            self._workers = [
                left.enter_context(module("plain_loop", self._folder / f"worker-{number}.log", "worker"))
                for number in range(WORKERS)
            ]
            self._port = self._owner.read()["port"]
            for worker in self._workers:
                worker.read()
            self._left = left.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.close()

    def run(self) -> Spent:
        """Processor seconds of all, of the products, and of the rest; and how long it took."""
        before = self._owner.ask("spent")["cpu_s"]
        for share, worker in enumerate(self._workers):
            worker.tell({"port": self._port, "share": share, "shares": WORKERS})
        answers = [worker.read() for worker in self._workers]
        all_s = self._owner.ask("spent")["cpu_s"] - before + sum(answer["cpu_s"] for answer in answers)
        compute = sum(answer["kernel_s"] for answer in answers)
        wall = max(answer["took_s"] for answer in answers)
        return {"all": all_s, "compute": compute, "rest": all_s - compute, "wall": wall}
