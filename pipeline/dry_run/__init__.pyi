from .dry_run import dry_cache_cohort as dry_cache_cohort
from .dry_run import dry_run_cohort as dry_run_cohort
from .outcome import DryRun as DryRun
