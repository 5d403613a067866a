"""The extraction engine: prepare in worker processes, batch, encode, write."""
