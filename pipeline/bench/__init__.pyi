from .bench import BenchSummary as BenchSummary
from .bench import bench_cohort as bench_cohort
