"""From bags and an exhaustive model that a user has to one that reads a few patches and estimates the same."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
