"""The feature cache and run records on disk: numpy, zarr, h5py, polars, JSON; never torch."""
