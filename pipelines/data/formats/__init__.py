"""File formats of tables: how each is read as a data frame."""
