"""How a stream is filled: shards are claimed, journalled and committed whole."""
