"""Where on a slide there is tissue, seen from a thumbnail, and how far that can be trusted."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
