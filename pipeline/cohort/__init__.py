"""Which slides: tables, folders, splits by patient, and how well predictions fit labels."""
