"""Encoders: one file each, with KINDS and build() that gives an Encoder."""
