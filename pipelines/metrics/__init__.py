"""Scores of outputs against targets, linear baselines, and significance tests."""
