from .cohort import Cohort as Cohort
from .cohort import CohortSlide as CohortSlide
from .files import find_slides as find_slides
from .splits import split_cohort as split_cohort
from .table import read_table as read_table
from .target import find_target as find_target
from .training_table import read_training_table as read_training_table
