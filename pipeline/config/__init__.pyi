from .distil import DistilConfig as DistilConfig
from .loading import load_config as load_config
from .loading import load_distil_config as load_distil_config
from .loading import override_config as override_config
from .sections import Config as Config
