"""What every overlay promises, held against the simulator's model of the network."""

from tests.e2e.overlay.test_conformance import *  # noqa: F403
