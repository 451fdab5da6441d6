"""What every program does around its command: errors become one sentence on stderr and an exit code."""

from __future__ import annotations

import os
import sys

from sparkle_protocol.errors import SparkleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

INTERRUPTED = 130


def guarded(command: Callable[[], int], program: str) -> int:
    """Run a command; what goes wrong ends as one sentence on stderr and an exit code.

    A reader that closes our output early (``sparkle jobs | head -1``) is no failure.
    """
    try:
        code = command()
        sys.stdout.flush()
        return code
    except SparkleError as error:
        sys.stderr.write(f"{program}: {error}\n")
        return error.exit_code
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
