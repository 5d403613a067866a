"""From a cell of a dataset to bytes, and from bytes to an image, audio, video or text."""
