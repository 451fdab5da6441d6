"""Two themes, dark and light. Any of Textual's works too (``TEXTUAL_THEME``, command palette)."""

import os
from typing import Final

from textual.theme import Theme

DARK: Final = Theme(
    name="sparkle-dark",
    dark=True,
    primary="#8b8cf7",
    secondary="#5fb3d4",
    accent="#f2c14e",
    success="#52c98c",
    warning="#eda05a",
    error="#f0657d",
    foreground="#e3e5ef",
    background="#11131a",
    surface="#1a1d27",
    panel="#232735",
)
LIGHT: Final = Theme(
    name="sparkle-light",
    dark=False,
    primary="#4b47c9",
    secondary="#11698a",
    accent="#8a6100",
    success="#17744a",
    warning="#8f5200",
    error="#b81f3f",
    foreground="#1b1d28",
    background="#fbfbfd",
    surface="#ffffff",
    panel="#e6e7f1",
)


def chosen() -> str:
    """The theme that the environment asks for, or the dark one."""
    return os.environ.get("TEXTUAL_THEME", DARK.name)
