"""Checks of what is stored, repair of what is damaged, garbage collection."""
