"""Whom a node believes, how far, and what it checks nevertheless."""
