"""The commands that the documents show work, and print what the documents say they print.

A page is one bash session in a fresh folder, with one node on loopback. Blocks marked ``console`` are run.
Lines below a command are its whole output (``…`` stands for anything); no lines, no comparison. A block after
``<!-- not run: reason -->`` is only read. A block after ``<!-- file: name -->`` lies in the folder under that name.
A page with ``<!-- no node -->`` is about the simulator: it is run without a node. Every folder has ``simulations``.
"""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = Path(sys.executable).parent
BLOCK = re.compile(r"^(?P<not_run><!-- not run: .+? -->\n+)?```console\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^<!-- file: (?P<name>[\w.-]+) -->\n+```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "--- command {} ---"
NO_NODE = "<!-- no node -->"
NODE_START_S, NODE_STOP_S, PAGE_S = 60.0, 15.0, 600.0


@dataclass(frozen=True, slots=True)
class Shown:
    """A command that a page shows, and the output shown below it."""

    command: str
    output: str


def shown_commands(text: str) -> list[Shown]:
    """The commands of a page that can be run, in order."""
    found = []
    for block in BLOCK.finditer(text):
        if not block["not_run"]:
            for part in re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                found.append(Shown(command, output.strip()))
    return found


def shown_files(text: str) -> dict[str, str]:
    """The files that a page tells its reader to save, by name."""
    return {block["name"]: block["text"] for block in FILE.finditer(text)}


def matches(shown: str, printed: str) -> bool:
    """Whether the printed text is what the page shows, ``…`` and surrounding blanks aside."""
    pattern = ".*".join(re.escape(piece) for piece in shown.split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


def pages() -> list[str]:
    """Documents with commands to run."""
    candidates = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [str(page.relative_to(ROOT)) for page in candidates if shown_commands(page.read_text())]


@asynccontextmanager
async def running_node(environment: dict[str, str], folder: Path) -> AsyncIterator[None]:
    """A node on loopback that is ready, and is stopped afterwards."""
    flags = ["--headless", "--json", "--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns"]
    with (folder / "node.log").open("wb") as log:
        node = await asyncio.create_subprocess_exec(
            PROGRAMS / "sparkle-node",
            *flags,
            env=environment,
            cwd=folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    assert node.stdout is not None
    try:
        async with asyncio.timeout(NODE_START_S):
            first = await node.stdout.readline()
        assert first, (folder / "node.log").read_text()
        assert json.loads(first)["event"] == "ready"
        drain = asyncio.create_task(node.stdout.read())  # or a full pipe would stop the node
        yield
        node.send_signal(signal.SIGTERM)
        async with asyncio.timeout(NODE_STOP_S):
            await node.wait()
            await drain
    finally:
        if node.returncode is None:
            node.kill()
            await node.wait()


async def run_page(commands: list[Shown], environment: dict[str, str], folder: Path) -> list[str]:
    """What each command printed; ends at the first that fails."""
    lines = ["set -e -o pipefail"]
    for number, shown in enumerate(commands):
        lines += [f"printf '%s\\n' '{MARK.format(number)}'", shown.command]
    shell = await asyncio.create_subprocess_exec(
        "bash", "-c", "\n".join(lines), env=environment, cwd=folder,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(PAGE_S):
            output, errors = await shell.communicate()
    finally:
        with suppress(ProcessLookupError):  # everything that it started, also in the background
            os.killpg(shell.pid, signal.SIGKILL)
        await shell.wait()
    printed = re.split(r"^--- command \d+ ---\n", output.decode(), flags=re.MULTILINE)[1:]
    last = commands[len(printed) - 1].command if printed else "bash"
    assert shell.returncode == 0, f"'{last}' failed with {shell.returncode}:\n{errors.decode()}{printed[-1:]}"
    return printed


@pytest.mark.timeout(NODE_START_S + PAGE_S + NODE_STOP_S + 5)
@pytest.mark.parametrize("page", pages())
async def test_shown_commands_work(page: str, tmp_path: Path) -> None:
    text = (ROOT / page).read_text()
    commands = shown_commands(text)
    for name, content in shown_files(text).items():
        (tmp_path / name).write_text(content)
    environment = {
        **os.environ,
        "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
        "SPARKLE_HOME": str(tmp_path / "home"),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    (tmp_path / "simulations").symlink_to(ROOT / "simulations")
    async with running_node(environment, tmp_path) if NO_NODE not in text else nullcontext():
        printed = await run_page(commands, environment, tmp_path)
    for shown, output in zip(commands, printed, strict=True):
        if shown.output:
            assert matches(shown.output, output), f"{page}: '{shown.command}' printed:\n{output}"


def test_every_console_block_shows_commands() -> None:
    empty = [
        f"{page.relative_to(ROOT)}: {block['text']!r}"
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for block in BLOCK.finditer(page.read_text())
        if not block["text"].startswith("$ ")
    ]
    assert not empty, f"begin the commands of a console block with '$ ': {empty}"


def test_extractor_reads_commands_and_skips_marked_blocks() -> None:
    not_run = "<!-- not run: it needs root -->\n```console\n$ sudo x\n```\n"
    page = f"{not_run}text\n```console\n$ a b\nout …\n$ c\n```\n"
    assert shown_commands(page) == [Shown("a b", "out …"), Shown("c", "")]
    assert shown_files("<!-- file: x.py -->\n```python\nx = 1\n```\n```python\nnot this\n```\n") == {
        "x.py": "x = 1\n"
    }


def test_every_shown_file_is_used() -> None:
    unused = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for name in shown_files(page.read_text())
        if not any(name in re.split(r"[\s=,:]", shown.command) for shown in shown_commands(page.read_text()))
    ]
    assert not unused, f"show the command that uses these files: {unused}"


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [("a … c", "a b\nb c\n", True), ("…(x)…", "1\n(x)\n2", True), ("a", "a b", False), ("a.c", "abc", False)],
)
def test_shown_output_is_compared(shown: str, printed: str, *, expected: bool) -> None:
    assert matches(shown, printed) is expected


async def test_a_failing_command_is_named(tmp_path: Path) -> None:
    commands = [
        Shown("x=1", ""),
        Shown("echo $x", "1"),
        Shown("echo no >&2; false", ""),
        Shown("echo never", ""),
    ]
    with pytest.raises(AssertionError, match=r"'echo no >&2; false' failed with 1:\s+no"):
        await run_page(commands, dict(os.environ), tmp_path)
    assert await run_page(commands[:2], dict(os.environ), tmp_path) == ["", "1\n"]
