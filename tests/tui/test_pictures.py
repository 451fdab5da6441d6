from tests.tui import scenes
from tests.tui.make_pictures import PICTURES, draw


async def test_the_picture_in_the_documentation_is_the_screen_of_today() -> None:
    """After a wanted change: python -m tests.tui.make_pictures, look at it, commit it."""
    assert await draw(scenes.REJECTED, (104, 30)) == (PICTURES / "tui.svg").read_text(encoding="utf-8")
