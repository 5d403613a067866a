"""From a cell of a dataset to bytes, and from bytes to a picture, sound, video or text."""
