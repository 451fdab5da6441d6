"""What of a node can be seen on this machine: its home directory's address, lock and process. How programs end."""
