from .distil import distil_cohort as distil_cohort
