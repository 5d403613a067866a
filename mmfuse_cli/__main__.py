"""`python -m mmfuse_cli` runs `mmfuse`."""

from mmfuse_cli.main import main

main()
