"""Where pages find each other and their pictures: at addresses of the server, or beside them in a folder."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Links:
    """Addresses as they are written into pages; nothing in them comes from the run but numbers.

    Attributes:
        served: whether a server answers them.
        up: what leads from a page to where the first page is.
        run: below what pictures of a run's slides lie: "s", or "o" of another run beside it.
    """

    served: bool
    up: str = ""
    run: str = "s"

    def at(self, up: str) -> Links:
        """The same from a page that lies deeper."""
        return Links(self.served, up, self.run)

    @property
    def cohort(self) -> str:
        """The page of all slides."""
        return f"{self.up}" if self.served else f"{self.up}index.html"

    def slide(self, number: int) -> str:
        """The page of a slide."""
        return f"{self.up}s/{number}/" if self.served else f"{self.up}slide-{number}.html"

    def picture(self, number: int, name: str) -> str:
        """A picture of a slide."""
        return f"{self.up}{self.run}/{number}/{name}"

    def asset(self, name: str) -> str:
        """A script or style."""
        return f"{self.up}asset/{name}"
