"""Recorded runs scored with modalities hidden, and applied to new samples."""
