"""Command line: parses options, calls the library once, shows tables."""

import sys

try:
    import mmfuse  # noqa: F401 - refuses a user's own cache.py or pipelines.py
except ImportError as error:
    sys.stderr.write(f"error: {error}\n")
    sys.exit(2)
