"""Rules that no linter checks for us: readable sizes, no sleeping tests, no swallowed failures."""

import ast
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

LONGEST_FILE, LONG_FILE, LONGEST_FUNCTION = 600, 400, 90


def nodes(path: Path) -> Iterator[ast.AST]:
    """Every syntax node of a file."""
    return ast.walk(ast.parse(path.read_text(), str(path)))


def report(faults: list[str], fix: str) -> None:
    """Fails with one line per fault and what to do about them."""
    assert not faults, "\n  ".join([fix, *faults])


def test_files_are_of_readable_size(repository: Path, sources: list[Path], tests: list[Path]) -> None:
    lines = {path: len((repository / path).read_text().splitlines()) for path in [*sources, *tests]}
    for path, count in lines.items():
        if LONG_FILE < count <= LONGEST_FILE:
            warnings.warn(f"{path} has {count} lines: think of splitting it by concern", stacklevel=1)
    too_long = [f"{path}: {count} lines" for path, count in lines.items() if count > LONGEST_FILE]
    report(too_long, f"split these files by concern (at most {LONGEST_FILE} lines each):")


def test_functions_are_of_readable_size(repository: Path, sources: list[Path]) -> None:
    too_long = [
        f"{path}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in [*sources, Path("run.py")]
        for node in nodes(repository / path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= LONGEST_FUNCTION
    ]
    report(too_long, f"split these functions (at most {LONGEST_FUNCTION} lines, better one screen):")


def test_every_module_says_what_it_is(repository: Path, sources: list[Path]) -> None:
    mute = [
        str(path)
        for path in sources
        if (text := (repository / path).read_text()).strip() and ast.get_docstring(ast.parse(text)) is None
    ]
    report(mute, "begin these modules with a docstring that says what they guarantee:")


def test_tests_do_not_sleep(repository: Path, tests: list[Path]) -> None:
    sleeps = [
        f"{path}:{node.lineno}"
        for path in tests
        for node in nodes(repository / path)
        if isinstance(node, ast.Call) and is_sleep(node)
    ]
    report(sleeps, "wait for an event with a time-out instead of sleeping (sleep(0), a plain yield, is fine):")


def is_sleep(call: ast.Call) -> bool:
    """Whether the call waits on the wall clock: ``time.sleep(x)``, ``asyncio.sleep(x)``, ``sleep(x)``."""
    name = ast.unparse(call.func)
    only_yields = len(call.args) == 1 and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0
    return name in {"sleep", "time.sleep", "asyncio.sleep", "trio.sleep", "anyio.sleep"} and not only_yields


def test_no_failure_is_swallowed(repository: Path, sources: list[Path]) -> None:
    swallowed = [
        f"{path}:{node.lineno}"
        for path in [*sources, Path("run.py")]
        for node in nodes(repository / path)
        if (isinstance(node, ast.ExceptHandler) and is_broad(node.type) and not is_passed_on(node))
        or (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("suppress")
            and any(map(is_broad, node.args))
        )
    ]
    report(swallowed, "catch the errors that you expect, or log the traceback, or raise:")


def is_broad(caught: ast.expr | None) -> bool:
    """Whether an except clause catches everything."""
    if isinstance(caught, ast.Tuple):
        return any(map(is_broad, caught.elts))
    return caught is None or ast.unparse(caught) in {"Exception", "BaseException"}


def is_passed_on(handler: ast.ExceptHandler) -> bool:
    """Whether a broad handler raises, logs the traceback, or hands the exception to somebody."""
    inside = [node for statement in handler.body for node in ast.walk(statement)]
    return any(
        isinstance(node, ast.Raise)
        or (isinstance(node, ast.Name) and node.id == handler.name)
        or (isinstance(node, ast.Attribute) and node.attr == "exception")
        or (isinstance(node, ast.keyword) and node.arg == "exc_info")
        for node in inside
    )


def test_nothing_is_pickled(repository: Path, sources: list[Path]) -> None:
    forbidden = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}
    found = [
        f"{path}:{node.lineno}"
        for path in sources
        for node in nodes(repository / path)
        if (isinstance(node, ast.Import) and any(alias.name in forbidden for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module in forbidden)
    ]
    report(found, "a pickle runs its sender's code: use the codec of sparkle_protocol:")


# Written in pieces, since this file is searched as well.
INDEX_HOSTS = re.compile(
    "|".join(["py" + r"pi\.org", "python" + r"hosted\.org", "npm" + r"js\.(org|com)", "yarn" + r"pkg\.com"])
    + r"|(deb|security|archive)\.(debian\.org|ubuntu\.com)"
)
MACHINE_PATHS = re.compile(r"(?<![\w.}~])/(work|root|home|Users|tmp/wt|tmp/boot)/")


def text_lines(repository: Path, files: list[Path]) -> Iterator[tuple[str, str]]:
    """Every line of every text file, with its place; and every file's name."""
    for path in files:
        yield str(path), str(path)
        try:
            text = (repository / path).read_text()
        except UnicodeDecodeError:  # a picture
            continue
        for number, line in enumerate(text.splitlines(), 1):
            yield f"{path}:{number}", line


def test_no_package_index_is_named(repository: Path, files: list[Path]) -> None:
    found = [place for place, line in text_lines(repository, files) if INDEX_HOSTS.search(line)]
    report(found, "name packages, not the hosts they come from; those are the user's choice:")


def test_no_path_of_a_developers_machine(repository: Path, files: list[Path]) -> None:
    found = [place for place, line in text_lines(repository, files) if MACHINE_PATHS.search(line)]
    report(found, "use a path relative to the repository, or ~ for a home directory:")
