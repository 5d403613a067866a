"""The front door: words in, one library call, a table out."""
