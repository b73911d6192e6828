from .calibrate import drawn_errors as drawn_errors
from .spec import model_spec as model_spec
from .train import train_cohort as train_cohort
