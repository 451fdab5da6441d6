"""``sparkle-sim``: the entry point, and the boundary where errors become one sentence and an exit code."""

import sys
from collections.abc import Sequence

from sparkle_p2p.runtime.program import guarded
from sparkle_protocol.errors import SparkleError


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sparkle-sim`` and return its exit code."""
    if argv is None:
        from sparkle_sim import compiled

        compiled.enter(sys.argv[1:])
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _run(arguments), "sparkle-sim")


def _run(arguments: Sequence[str]) -> int:
    from sparkle_sim.cli.parser import parse

    parsed = parse(arguments)
    try:
        return int(parsed.command(parsed))
    except MemoryError as error:
        text = "there is not enough memory for this run; ask for fewer peers or units"
        raise SparkleError(text) from error


if __name__ == "__main__":
    sys.exit(main())
