"""Evaluation of recorded runs: scores with modalities hidden, and predictions for new samples."""
