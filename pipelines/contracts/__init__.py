"""Conformance checks of fusion heads and encoders: `mmfuse check`."""
