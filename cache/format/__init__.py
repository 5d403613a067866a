"""How a stream lies on disk: Zarr arrays and shards, generations, memory-mapped readers."""
