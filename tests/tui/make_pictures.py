"""Draws ``docs/pictures/tui.svg``: the screen of a working node, from fixed data.

Run from the repository's root: ``python -m tests.tui.make_pictures``. The same data gives the same bytes.
"""

import argparse
import asyncio
import os
import re
import time
from pathlib import Path

from sparkle_p2p.view import NodeView
from tests.tui import scenes
from tests.tui.fake_node import FakeClock, FakeNode

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"


async def draw(view: NodeView, size: tuple[int, int], *, theme: str | None = None) -> str:
    """The screen as SVG, without the random id that would make every picture a new one."""
    from sparkle_tui.app import SparkleApp

    clock = FakeClock(scenes.NOW - 41)
    node = FakeNode(view)
    app = SparkleApp(node, clock=clock, refresh_hz=0)
    async with app.run_test(size=size) as pilot:
        if theme is not None:
            app.theme = theme
        scenes.live_through(app, node, clock)
        await pilot.pause()
        svg = app.export_screenshot(title="sparkle-node")
    return re.sub(r"terminal-\d+-", "terminal-", svg)


def main() -> None:
    """Write the picture of the working state, or of another scene and size to another place."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--scene", default="rejected", choices=sorted(scenes.SCENES))
    parser.add_argument("--size", default="104x30", help="columns x rows")
    parser.add_argument("--theme")
    parser.add_argument("--out", type=Path, default=PICTURES / "tui.svg")
    arguments = parser.parse_args()
    os.environ["TZ"] = "UTC"
    time.tzset()
    columns, rows = (int(part) for part in arguments.size.split("x"))
    svg = asyncio.run(draw(scenes.SCENES[arguments.scene], (columns, rows), theme=arguments.theme))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
