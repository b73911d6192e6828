"""Training on a cohort: the loop, the held-out slides, and the calibration of intervals."""
