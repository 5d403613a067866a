"""Features in and out as files: HDF5, npy, npz, parquet, safetensors, and packs."""
