"""How much can flow through arcs of limited width, and how those at the far end share it.

Maximum flow by blocking flows along shortest ways (Dinic, 1970), in integers. Work is bounded: when the steps are
used up, what flows by then is the answer. It is never too much, and short ways were found first.
"""

from collections.abc import Sequence

# Arcs looked at: seven times what 400 submitters take in an honest network of 10 000 accounts and 100 000 arcs. A
# crowd that pays each other in every direction can make it a third of a second.
STEPS = 500_000
_FAR = 1 << 60


class FlowNetwork:
    """Arcs with widths, and what flows through them."""

    def __init__(self, nodes: int, steps: int = STEPS) -> None:
        self._to: list[int] = []
        self._left: list[int] = []  # width not used; arc ``a ^ 1`` is ``a`` backwards
        self._arcs: list[list[int]] = [[] for _ in range(nodes)]
        self._steps = steps
        self._distance: dict[int, int] = {}  # to the sink
        self._place: dict[int, int] = {}  # the first arc of a node that may still lead on

    def add_node(self) -> int:
        """A further node."""
        self._arcs.append([])
        return len(self._arcs) - 1

    def add(self, start: int, end: int, width: int) -> int:
        """An arc. Of arcs from one node those added first are used first."""
        arc = len(self._to)
        self._to += [end, start]
        self._left += [width, 0]
        self._arcs[start].append(arc)
        self._arcs[end].append(arc + 1)
        return arc

    def flow(self, arc: int) -> int:
        """What flows through an arc."""
        return self._left[arc ^ 1]

    def left(self, arc: int) -> int:
        """What more could flow through it."""
        return self._left[arc]

    def widen(self, arc: int, width: int) -> None:
        """The arc is ``width`` wide from now on, which is no less than what flows."""
        self._left[arc] = width - self._left[arc ^ 1]

    def fill(self, source: int, sink: int, longest: int = _FAR) -> None:
        """Let as much flow as can along ways of at most so many arcs. No arc into the sink gets less than it had."""
        while self._steps > 0 and self._measure(source, sink, longest):
            self._place = {}
            while way := self._find_way(source, sink):
                amount = min(self._left[arc] for arc in way)
                for arc in way:
                    self._left[arc] -= amount
                    self._left[arc ^ 1] += amount

    def _measure(self, source: int, sink: int, longest: int) -> bool:
        """Find how far each node is from the sink; False when nothing leads there from the source."""
        distance, front = {sink: 0}, [sink]
        while front and source not in distance and distance[front[0]] < longest:
            reached: list[int] = []
            for node in front:
                self._steps -= len(self._arcs[node])
                further = distance[node] + 1
                for arc in self._arcs[node]:
                    before = self._to[arc]
                    if self._left[arc ^ 1] and before not in distance:
                        distance[before] = further
                        reached.append(before)
            front = reached
        self._distance = distance
        return source in distance

    def _find_way(self, source: int, sink: int) -> list[int]:
        """Arcs of a shortest way from the source to the sink; none when this length is used up."""
        way: list[int] = []
        node = source
        while node != sink:
            arc = self._next_arc(node)
            if arc is not None:
                way.append(arc)
                node = self._to[arc]
            elif way and self._steps > 0:  # a dead end
                node = self._to[way.pop() ^ 1]
                self._place[node] += 1
            else:
                return []
        return way

    def _next_arc(self, node: int) -> int | None:
        arcs, place, nearer = self._arcs[node], self._place.get(node, 0), self._distance[node] - 1
        first = place
        while place < len(arcs):
            arc = arcs[place]
            if self._left[arc] and self._distance.get(self._to[arc], _FAR) == nearer:
                break
            place += 1
        self._steps -= 1 + place - first
        self._place[node] = place
        return arcs[place] if place < len(arcs) else None


def share(
    network: FlowNetwork, source: int, ends: Sequence[int], levels: Sequence[int], longest: int = _FAR
) -> list[int]:
    """How much reaches each of the ends when all draw at once; nobody gets more at the expense of who has less.

    All rise from level to level together (ascending; the last is the most that anybody gets), and who cannot reach
    one stays behind. So what flows to a set of ends never exceeds what can flow to all of them together, and among
    those held back by the same arcs nobody is more than a level ahead of another. (Megiddo, 1974, calls the limit of
    ever finer levels the lexicographically optimal flow.) Only ways of ``longest`` arcs at most are looked for.
    """
    sink = network.add_node()
    arcs = [network.add(end, sink, 0) for end in ends]
    rising = arcs
    for level in levels:
        for arc in rising:
            network.widen(arc, level)
        network.fill(source, sink, longest + 1)
        stuck = [arc for arc in rising if network.left(arc)]
        for arc in stuck:
            network.widen(arc, network.flow(arc))
        rising = [arc for arc in rising if network.flow(arc) == level]
        if not rising:
            break
    return [network.flow(arc) for arc in arcs]
