"""`python -m world4rl` is the command `world4rl`."""

from world4rl.cli import main

main()
