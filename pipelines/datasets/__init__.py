"""Datasets: one file each, with build(root) that gives a Dataset."""
