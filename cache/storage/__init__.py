"""Atomic whole-file writes, leases, and remembered digests of files."""
