"""Blobs on disk: content-addressed, resumable, within a quota, readable as arrays without a copy."""
