"""`python -m engine.cli`: the command line, wherever the script is."""

from engine.cli.main import main

main()
