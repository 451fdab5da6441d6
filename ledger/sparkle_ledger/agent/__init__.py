"""What a node does about credit: its own account, its claims, and its part in keeping others' entries."""
