from r2seg.cli import main

main()
