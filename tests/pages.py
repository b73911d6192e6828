"""The documentation as tests read it: pages, their blocks, the commands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from makers import ROOT

PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
LANGUAGES = {"sh", "python", "pycon", "yaml", "csv", "json", "text"}
"""Of blocks; `text` is for what is neither typed nor read by a program."""


@dataclass(frozen=True, slots=True)
class Block:
    """What stands between two fences of a page."""

    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Its lines, without comments; of a here-document the first line stands for all."""
        text = re.sub(r"<<(\w+)\n.*?\n\1$", r"<<\1", self.text, flags=re.DOTALL | re.MULTILINE)
        lines = [re.sub(r"(^|\s+)# .*", "", line) for line in text.replace("\\\n", " ").splitlines()]
        return [line for line in lines if line.strip()]


@cache
def text_of(page: str) -> str:
    """The page, by its path from the repository's root."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str | None = None) -> list[Block]:
    """Blocks of a page in their order, of all languages or one."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text_of(page), re.DOTALL | re.MULTILINE)
    return [Block(*one) for one in found if language in (None, one[0])]


def mentions(page: str) -> Iterator[str]:
    """Commands as prose has them, between backticks, and those of blocks."""
    prose = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    yield from re.findall(
        r"`([^`\n]+)`", re.sub(r"(?<!\n)\n(?!\n)", " ", prose)
    )  # a command may go on in the next line
    for block in blocks(page, "sh"):
        yield from block.commands


def write_block(page: str, language: str, path: Path) -> Path:
    """Write the only block of a language to a file, as a reader would."""
    [block] = blocks(page, language)
    path.write_text(block.text, encoding="utf-8")
    return path
