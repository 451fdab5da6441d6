"""The command that makes the key of a private network."""

import argparse
import sys
from pathlib import Path

from sparkle_p2p.cli import output
from sparkle_p2p.network_key import make_network_key


def network_key(arguments: argparse.Namespace) -> int:
    """Write a new key into a new file."""
    path = Path(arguments.file).expanduser().absolute()
    key = make_network_key(path)
    if arguments.json:
        output.print_json({"file": str(path), "fingerprint": key.fingerprint})
        return 0
    print(f"{output.clean(str(path))} holds a new key, {key.fingerprint}")
    sys.stderr.write("give every node of the network a copy, and start each with 'sparkle-node --network-key FILE'\n")
    return 0
