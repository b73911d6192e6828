"""Pages of reports, read as a browser would."""

from __future__ import annotations

import io
from html.parser import HTMLParser

from PIL import Image

HOSTILE = "<script>alert(1)</script>\"'&amp; #100%?é"
"""What must come out of a page as it went in."""
_held = io.BytesIO()
Image.new("RGB", (8, 4), "teal").save(_held, "JPEG")
JPEG = _held.getvalue()
VOID = {"meta", "img", "input", "rect"}


class Page(HTMLParser):
    """What a browser would see: checks that tags nest, and keeps links, texts and attributes."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inline: dict[str, str] = {}
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("style", "script"):
            self.inline[self.open[-1]] = data
        else:
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())
