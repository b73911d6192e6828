"""The demo: slides made from real stained tissue, and the whole flow run on them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
