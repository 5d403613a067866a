"""Stage 1: which rows are to be encoded, their encoding, and a report of it."""
