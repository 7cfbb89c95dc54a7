"""`python -m orchestrator` is `dnctl`."""

from orchestrator.cli.app import main

main()
