"""Writing a stream: shards are leased, journalled, and committed whole."""
