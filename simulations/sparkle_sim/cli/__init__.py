"""``sparkle-sim``. Commands are imported when one is run."""
