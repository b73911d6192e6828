"""Before hours of work: what is wrong with slides and their table, and what a model will cost on them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
