"""``python -m r2seg COMMAND``."""

from r2seg.cli import main

main()
