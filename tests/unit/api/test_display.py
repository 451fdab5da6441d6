"""What people see while they wait: a line in a terminal, an output in a notebook, nothing elsewhere."""

import asyncio
import io
import sys
import types
from typing import Any

import pytest

import sparkle_p2p as sparkle
from tests.unit.api.array_node import ArrayNode


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_one_line_that_is_gone_afterwards(
    mesh: sparkle.Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    mesh.submit("prime_count", units=4).result()
    assert "prime_count ▕██████" in screen.getvalue()
    assert "1/4 units, 1 rejected, 3.0 s left" in screen.getvalue()
    assert screen.getvalue().endswith("\r\x1b[K")
    assert "\n" not in screen.getvalue()
    for silent in (mesh.submit("prime_count"), mesh.submit("mandelbrot")):
        before = screen.getvalue()
        silent.wait(progress=False)
        assert screen.getvalue() == before


def test_no_terminal_no_progress(mesh: sparkle.Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    mesh.submit("prime_count").result(progress=True)
    monkeypatch.setattr(sys, "stderr", None)
    mesh.submit("prime_count").result()
    assert pipe.getvalue() == ""


async def test_of_jobs_waited_for_together_one_has_the_line(node: ArrayNode, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    async with sparkle.aconnect(node.home) as mesh:
        first, second = await mesh.submit("prime_count"), await mesh.submit("mandelbrot")
        await asyncio.gather(first.wait(), second.wait())
    assert "prime_count" in screen.getvalue()
    assert "mandelbrot" not in screen.getvalue()


def test_a_notebook_shows_one_output_that_is_replaced(mesh: sparkle.Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, str]] = []

    class Handle:
        def update(self, data: dict[str, str], *, raw: bool) -> None:
            shown.append(("update", data["text/plain"]))

    def display(data: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        assert (raw, display_id) == (True, True)
        shown.append(("display", data["text/plain"]))
        return Handle()

    ipython: Any = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    mesh.submit("prime_count", units=4).result()
    assert [kind for kind, _ in shown] == ["display", "update", "update", "update"]
    assert "4/4 units, 1 rejected, done" in shown[-1][1]
    ipython.get_ipython = lambda: types.SimpleNamespace()  # IPython in a terminal has no kernel
    before = len(shown)
    mesh.submit("prime_count").result()
    assert len(shown) == before
