"""How many patches a cohort needs: ways to read slides, what each costs and how near it comes to reading everything."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
