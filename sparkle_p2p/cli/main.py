"""``sparkle``: the entry point, and the boundary where errors become one sentence and an exit code.

``sparkle status --json`` is asked by scripts many times a minute and takes a path of its own that imports
next to nothing; everything else goes through argparse.
"""

from __future__ import annotations

import os
import sys

from sparkle_p2p.runtime.program import guarded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sparkle`` and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _run(arguments), "sparkle")


def _run(arguments: list[str]) -> int:
    home = _fast_status(arguments)
    if home is not None:
        from sparkle_p2p.api.client import LocalClient

        sys.stdout.write(LocalClient(home).status_bytes().decode("utf-8") + "\n")
        return 0
    from sparkle_p2p.cli.parser import parse

    parsed = parse(arguments)
    return int(parsed.command(parsed))


def _fast_status(arguments: list[str]) -> str | None:
    """The home directory if this is ``status --json`` in a form that needs no argparse, else None."""
    if not arguments or arguments[0] != "status" or "--json" not in arguments:
        return None
    rest = [argument for argument in arguments[1:] if argument != "--json"]
    flag: str | None = None
    if len(rest) == 2 and rest[0] == "--home" and not rest[1].startswith("-"):
        flag = rest[1]
    elif len(rest) == 1 and rest[0].startswith("--home=") and len(rest[0]) > 7:
        flag = rest[0][7:]
    elif rest:
        return None
    from sparkle_p2p.runtime.locate import home_path

    return home_path(flag, os.environ)


if __name__ == "__main__":
    sys.exit(main())
