from .books import RunSummary as RunSummary
from .keys import RunSettings as RunSettings
from .run import run_cohort as run_cohort
from .slide import process_slide as process_slide
from .workers import each as each
