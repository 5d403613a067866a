"""Cached features as tensors on a device, and what of them is hidden."""
