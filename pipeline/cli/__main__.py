"""`python -m pipeline.cli`: the command, of the packages that this process finds first."""

from __future__ import annotations

from pipeline.cli.entry import main

if __name__ == "__main__":
    main()
