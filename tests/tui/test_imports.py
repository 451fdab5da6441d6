"""The screen is a client: it loads the view and nothing of the node behind it."""

import subprocess
import sys

FORBIDDEN = ("libp2p", "trio", "aiohttp", "numpy", "sqlite3", "sparkle_p2p.node", "sparkle_p2p.net", "sparkle_worker")
PROGRAM = """
import sys
import sparkle_tui
assert "textual" not in sys.modules, "importing the package alone must stay cheap"
import sparkle_tui.app
print(*[name for name in sys.modules if name.startswith({names!r})])
print(*[name for name in sys.modules if name.startswith("sparkle_")])
"""


def test_only_the_view_is_loaded() -> None:
    program = PROGRAM.format(names=FORBIDDEN)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    forbidden, ours = done.stdout.splitlines()
    assert forbidden == ""
    assert {name for name in ours.split() if name.startswith("sparkle_p2p.")} == {"sparkle_p2p.view"}
    assert "sparkle_tui.help" not in ours
    assert "sparkle_tui.trust" not in ours
    assert "sparkle_tui.credit" not in ours
