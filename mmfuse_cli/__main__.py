"""python -m mmfuse_cli is mmfuse."""

from mmfuse_cli.main import main

main()
