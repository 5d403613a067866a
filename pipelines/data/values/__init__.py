"""Values of a table's columns: their types, and how words are read as them."""
