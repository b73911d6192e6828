"""A slide as its file holds it: facts, levels, tiles, and any part of it at its exact physical size."""
