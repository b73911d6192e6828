"""A run for other programs: every slide's maps, patches and prediction in the forms that they open."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
