"""What lands on disk: tables, a slide's folder, bags of features, the record of a run."""
