"""Fusion methods: one file each, with build() that gives a FusionHead."""
