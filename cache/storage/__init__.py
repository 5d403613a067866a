"""Whole files written under a temporary name and renamed; leases; digests of files."""
