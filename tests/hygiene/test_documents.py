"""Documents hold together: a README per folder, links that lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|(?:src|href)=\"([^\"]+)\"")
NAMED_TEST = re.compile(r"(tests/[\w/.-]+\.py)::(\w+)")
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def test_every_folder_has_a_readme(repository: Path, files: list[Path]) -> None:
    folders = {path.parts[0] for path in files if len(path.parts) > 1 and not path.parts[0].startswith(".")}
    missing = sorted(folder for folder in folders if not (repository / folder / "README.md").exists())
    assert not missing, f"write a README.md that says what the folder is and its rules: {missing}"


def test_relative_links_lead_somewhere(repository: Path, files: list[Path]) -> None:
    broken = [
        f"{path}: {target}"
        for path in files
        if path.suffix == ".md"
        for target in links((repository / path).read_text())
        if not leads_somewhere(repository / path, target)
    ]
    assert not broken, "\n  ".join(["correct or remove these links:", *broken])


def test_tests_that_documents_name_exist(repository: Path, files: list[Path]) -> None:
    missing = [
        f"{path}: {file}::{name}"
        for path in files
        if path.suffix == ".md"
        for file, name in NAMED_TEST.findall((repository / path).read_text())
        if not is_test(repository / file, name)
    ]
    assert not missing, "\n  ".join(["no such tests; correct the names or write them:", *missing])


def test_every_attack_names_its_test(repository: Path) -> None:
    text = (repository / "THREAT_MODEL.md").read_text()
    rows = [line for title in ("trust", "credit") for line in section(text, f"Attacks on {title}")]
    assert len(rows) > 30
    bare = [row for row in rows if not NAMED_TEST.search(row)]
    assert not bare, "\n  ".join(["name the test that shows the defence:", *bare])


def section(text: str, title: str) -> list[str]:
    """The rows of the table below a heading."""
    body = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return [line for line in body.splitlines() if line.startswith("| **")]


def is_test(file: Path, name: str) -> bool:
    """Whether the file has a test of that name."""
    return file.exists() and re.search(rf"^\s*(async )?def {name}\(", file.read_text(), re.MULTILINE) is not None


def links(text: str) -> Iterator[str]:
    """Targets of a page's links and pictures that point into the repository."""
    for match in LINK.finditer(FENCED.sub("", text)):
        target = match.group(1) or match.group(2)
        if not re.match(r"[a-z][a-z0-9+.-]*:", target):
            yield target


def leads_somewhere(page: Path, target: str) -> bool:
    """Whether the file exists and, if the link names a heading, that too."""
    name, _, heading = target.partition("#")
    file = page.parent / name if name else page
    if not file.exists():
        return False
    return not heading or file.suffix != ".md" or heading in anchors(file.read_text())


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings get: lower case, punctuation dropped, blanks as hyphens."""
    titles = re.findall(r"^#+\s+(.*?)\s*$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
