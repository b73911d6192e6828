"""Build docs/api.md from the docstrings of what `import saccade` hands out (`make docs`); with --check, compare only.

The docstrings are read by griffe and written by griffe2md; nothing heavy is imported.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from griffe2md import render_package_docs

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import saccade  # noqa: E402 - of this checkout; for the order of its names only

PAGE = ROOT / "docs" / "api.md"
ZARRS = "get|get_partial_values|exists|getsize|list|list_prefix|list_dir|set|delete"
"""Methods of `SlideStore` that zarr calls; what they do is zarr's to say."""
HEAD = "<!-- Built by `make docs` from the docstrings: change those. -->\n\n"


def page() -> str:
    """The page as it should be."""
    text = render_package_docs(
        "saccade",
        {
            "search_paths": [str(ROOT)],
            "docstring_options": {"warn_unknown_params": False},
            "filters": ["!^_", "!^(moved|shadows)$", f"!^({ZARRS})$"],
            "heading_level": 1,
            "members": [name for name in saccade.__all__ if name != "__version__"],
            "members_order": "source",
            "show_root_full_path": False,
            "show_object_full_path": False,
            "show_root_members_full_path": False,
            "show_signature_annotations": True,
            "show_submodules": False,
            "show_if_no_docstring": False,
            "summary": {"classes": True, "functions": True},
            "line_length": 100,
        },
    )
    text = re.sub(r"\[([^\[\]]*)\]\(#[^)]*\)", r"\1", text)  # its links lead to anchors that GitHub does not make
    head, *sections = re.split(r"\n(?=## `)", re.sub(r"\n{3,}", "\n\n", text))
    sections.sort(key=lambda section: saccade.__all__.index(section.split("`")[1]))
    text = "\n".join([head, *sections])
    return HEAD + "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where the page is not what it should be"
    )
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit(f"{PAGE} is not what the docstrings say: run `make docs`")


if __name__ == "__main__":
    main()
