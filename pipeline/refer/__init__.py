"""Sets of classes that hold a slide's label as often as is stated, and whether to call it or to refer it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
