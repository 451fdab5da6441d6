"""The node's HTTP side: a JSON API for clients on this machine."""
