"""Layouts of own data that are more than one table: folders of files or tables, the hub."""
