"""Coroutines on virtual time: they go on in order, end together, and leave nothing behind."""

from sparkle_sim.kernel import SECOND, Kernel
from sparkle_sim.processes import Loop, Places, Promise


class Bench:
    def __init__(self) -> None:
        self.kernel = Kernel()
        self.loop = Loop(self.kernel, lambda call: call(), (ValueError,))
        self.said: list[tuple[float, str]] = []

    def say(self, what: str) -> None:
        self.said.append((self.kernel.now / SECOND, what))

    def run(self) -> list[tuple[float, str]]:
        self.kernel.run(1000 * SECOND)
        return self.said


async def _work(bench: Bench, name: str, seconds: float, *, fails: bool = False) -> None:
    try:
        await bench.loop.sleep(seconds)
        if fails:
            raise ValueError(name)
        bench.say(name)
    finally:
        bench.say(f"end {name}")


def test_all_of_several_and_the_first_failure_ends_them() -> None:
    bench = Bench()

    async def both() -> None:
        await bench.loop.gather([_work(bench, "a", 2.0), _work(bench, "b", 1.0)])
        bench.say("both")
        try:
            await bench.loop.gather([_work(bench, "c", 9.0), _work(bench, "d", 1.0, fails=True)])
        except ValueError as error:
            bench.say(f"failed {error}")

    bench.loop.begin(both())
    assert bench.run() == [
        (1.0, "b"), (1.0, "end b"), (2.0, "a"), (2.0, "end a"), (2.0, "both"),
        (3.0, "end d"), (3.0, "end c"), (3.0, "failed d"),
    ]  # fmt: skip
    assert not bench.loop.running


def test_places_are_given_in_order_and_given_back_by_who_is_cancelled() -> None:
    bench, places = Bench(), Places(1)

    async def one(name: str) -> None:
        async with places:
            await _work(bench, name, 1.0)

    processes = [bench.loop.begin(one(name)) for name in "abcd"]
    processes[1].cancel()  # it waits
    bench.kernel.run(SECOND // 2)
    processes[0].cancel()  # it has the place
    assert bench.run() == [(0.5, "end a"), (1.5, "c"), (1.5, "end c"), (2.5, "d"), (2.5, "end d")]


def test_what_stops_does_what_it_has_to_do_in_the_end_and_no_more() -> None:
    bench = Bench()
    never: Promise[None] = Promise()

    async def wait() -> None:
        try:
            await never
        finally:
            bench.say("end")

    bench.loop.begin(wait())
    bench.loop.stop()
    never.set(None)
    assert bench.run() == [(0.0, "end")]
    assert not bench.loop.running
