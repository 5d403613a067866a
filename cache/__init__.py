"""What is kept: numpy, zarr, h5py, polars and json. Knows no torch, no model, no terminal."""
