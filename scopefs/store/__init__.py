"""Synchronous disk work: files, the index, and the protocol that keeps them in step."""
