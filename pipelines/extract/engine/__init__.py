"""How rows move in an extraction: prepared in worker processes, batched, encoded, written."""
