"""Stage 2: heads trained on cached features, all replicas side by side."""
