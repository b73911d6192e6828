"""The paper's tasks: models, training, costs and records that all of their benchmarks share."""
