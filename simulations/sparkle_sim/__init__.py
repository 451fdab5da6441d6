"""The deterministic multi-peer simulator: production cores on virtual time."""
