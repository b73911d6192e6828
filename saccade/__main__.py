"""`saccade` and `python -m saccade`: the command, whatever folder it is called in."""

from __future__ import annotations

import sys

from saccade.shadows import ignore_working_directory, refuse_shadows


def main() -> None:
    """Run the command; where its packages are hidden by others, say so in one line and exit with 2."""
    ignore_working_directory()
    try:
        refuse_shadows()
    except ImportError as exc:
        print(f"saccade: error: {exc}", file=sys.stderr)
        sys.exit(2)
    from pipeline.cli.entry import main as command

    command()


if __name__ == "__main__":
    main()
