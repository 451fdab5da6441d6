"""``sparkle-sim``: the entry point, and the boundary where errors become one sentence and an exit code."""

import os
import sys
from collections.abc import Callable, Sequence

from sparkle_protocol.errors import SparkleError

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sparkle-sim`` and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _run(arguments))


def _run(arguments: Sequence[str]) -> int:
    from sparkle_sim.cli.parser import parse

    parsed = parse(arguments)
    return int(parsed.command(parsed))


def guarded(command: Callable[[], int]) -> int:
    """Run a command; what goes wrong ends as one sentence on stderr and an exit code.

    A reader that closes our output early is no failure.
    """
    try:
        code = command()
        sys.stdout.flush()
        return code
    except SparkleError as error:
        sys.stderr.write(f"sparkle-sim: {error}\n")
        return error.exit_code
    except MemoryError:
        sys.stderr.write("sparkle-sim: there is not enough memory for this run; ask for fewer peers or units\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return INTERRUPTED
    except BrokenPipeError:
        return 0
    finally:
        _let_go_of_output()


def _let_go_of_output() -> None:
    """What a closed pipe or a full disk does not take is lost; without this Python's own flush would fail at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
