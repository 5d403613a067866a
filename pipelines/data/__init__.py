"""From a dataset word or a file of the user to a Dataset: one table row a sample."""
