"""How much of moving blobs goes on at a time, how long each step may take, and how often it is tried.

These are decisions, so that whoever moves blobs, a node or a simulated one, takes them from here.
"""

from collections.abc import Sequence

from sparkle_protocol.ids import PeerId

# --- who asks -------------------------------------------------------------------------------------------------

MAX_FETCHES = 4  # of a node at a time; further ones wait for a place
NEXT_S = 0.5  # the next peer is asked for an outline if the ones before have not answered by then
OUTLINE_S = 30.0  # for one peer: at most four replies
SPARE_S = 2.0  # without a chunk, until the spare sources are asked as well
REPLY_S = 30.0  # a piece of 256 KiB over a slow relay
IDLE_S = 10.0  # a connection that nobody uses stays open; servers wait longer

# --- who answers ----------------------------------------------------------------------------------------------

MAX_ANSWERS = 64
MAX_ANSWERS_PER_PEER = 8
CHUNK_S = 75.0  # for one chunk to be taken: 16 KiB/s take 64 s

# --- what for -------------------------------------------------------------------------------------------------

AT_ONCE = 2  # inputs of a kept job: of the places for transfers, some stay free for tiles that a unit waits for
GIVE_WAY_S = 2.0  # an input waits for those tiles so long at most
LEASES_S = 0.1  # after a job came: its first leases come then too, and their tiles shall be the first
MAX_PREPARED = 16  # units in hand whose tiles are fetched ahead
PREPARING = 2  # of these at a time whose tiles are on their way before their turn
TILE_TRIES = 4  # over about seven seconds beside what the transfers take
RESULTS_AT_ONCE = 4  # of others' jobs that are to be kept here
RESULT_TRIES = 5  # over about fifteen seconds beside what the transfers take
MAX_RESULTS_WAITING = 8192  # what goes beyond is left to other keepers
CHECKS = 2  # while one is in the process, the blobs of the next are fetched
CHECK_TRIES = 4


def pause_s(attempt: int, *, most_s: float = 60.0) -> float:
    """Seconds to wait after the ``attempt``-th failure (from 0): they double from one second on."""
    return float(min(2.0**attempt, most_s))


def split_sources(sources: Sequence[PeerId], likely: int | None, me: PeerId) -> tuple[list[PeerId], list[PeerId]]:
    """Whom to ask for a blob first and whom when these fail or are slow, each once and without ourselves.

    The first ``likely`` sources should have it (None: all); without any of these, all others are asked at once.
    """
    first = dict.fromkeys(peer for peer in sources[:likely] if peer != me)
    rest = [peer for peer in dict.fromkeys(sources) if peer != me and peer not in first]
    return ([*first], rest) if first else (rest, [])
