from .run import RunSettings as RunSettings
from .run import RunSummary as RunSummary
from .run import process_slide as process_slide
from .run import run_cohort as run_cohort
from .workers import each as each
