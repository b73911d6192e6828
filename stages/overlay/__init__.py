"""What a person looks at: the picture of a slide's attention, and its objects for QuPath."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
