from .files import find_slides as find_slides
from .splits import split_cohort as split_cohort
from .table import Cohort as Cohort
from .table import CohortSlide as CohortSlide
from .table import find_target as find_target
from .table import read_table as read_table
from .table import read_training_table as read_training_table
