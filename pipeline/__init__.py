"""The plant: composes the stages into a model, trains it, runs it over cohorts, keeps records, talks to people."""
