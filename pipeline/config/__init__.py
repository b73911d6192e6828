"""What `saccade train CONFIG` reads: strict sections, one line of error, `--set section.key=value` on top."""

from pipeline.config.loading import load_config as load_config
from pipeline.config.loading import override_config as override_config
from pipeline.config.sections import Config as Config
