from .check import check_cohort as check_cohort
from .values import CheckSummary as CheckSummary
from .values import Finding as Finding
from .values import SlideCheck as SlideCheck
