"""What `saccade train CONFIG` reads: strict sections, one line of error, `--set section.key=value` on top."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
