"""Data leakage: duplicates, label-aware features and label traces, found in cached features."""
