"""The rules of Sparkle without any I/O: ids, signed facts, messages, work, verification."""
