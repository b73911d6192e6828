"""What users call, on the command line and by `import saccade`: paths and plain values in, frozen values out.

Everything heavy is imported when it is needed, after what can be answered without it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
