"""The cohort at a glance, as one HTML file."""
