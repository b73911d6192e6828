"""Measurements: of the product here, one script each; of the paper's tasks, on the product's model, in ``paper/``."""
