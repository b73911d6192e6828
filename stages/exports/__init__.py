"""What other programs open: maps, patches and predictions written as each of them has it, from plain values."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
