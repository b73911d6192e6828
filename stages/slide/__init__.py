"""A slide as its file holds it: facts, levels, tiles, and any part of it at its exact physical size.

`Slide` is the protocol that everything else reads pixels through.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
