"""The command line: words in, one call of the library, a table out."""

import sys

try:
    import mmfuse  # noqa: F401 - refuses a user's own cache.py or pipelines.py
except ImportError as error:
    sys.stderr.write(f"error: {error}\n")
    sys.exit(2)
