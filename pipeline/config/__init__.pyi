from .loading import load_config as load_config
from .loading import override_config as override_config
from .sections import Config as Config
