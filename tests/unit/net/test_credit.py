"""The other side of a stream is told seldom, and in time, that it may send more."""

from types import SimpleNamespace

import trio

from sparkle_p2p.net.libp2p.credit import PORTION_BYTES, credit_in_portions

WINDOW = 256 << 10  # what py-libp2p lets a peer send at first


class Muxed:
    """As much of a yamux stream as matters."""

    def __init__(self) -> None:
        self.credit: list[int] = []

    async def _auto_tune_and_send_window_update(self, *, bytes_read: int = 0) -> None:
        self.credit.append(bytes_read)

    async def read(self, count: int) -> None:
        await self._auto_tune_and_send_window_update(bytes_read=count)


def test_small_reads_are_told_of_together_and_none_is_forgotten() -> None:
    muxed = Muxed()
    credit_in_portions(SimpleNamespace(muxed_stream=muxed))  # type: ignore[arg-type]

    async def read() -> None:
        for _ in range(3 * PORTION_BYTES // 250 + 3):
            await muxed.read(250)

    trio.run(read)
    assert len(muxed.credit) == 3
    assert all(PORTION_BYTES <= portion < PORTION_BYTES + 250 for portion in muxed.credit)


def test_a_sender_never_comes_to_the_end_of_its_window() -> None:
    assert 2 * PORTION_BYTES <= WINDOW


def test_streams_of_other_kinds_are_left_alone() -> None:
    muxed = SimpleNamespace()
    credit_in_portions(SimpleNamespace(muxed_stream=muxed))  # type: ignore[arg-type]
    assert not vars(muxed)
