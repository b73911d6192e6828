"""Prediction of a cohort: one task a slide, failures recorded, a rerun does only what is missing."""
