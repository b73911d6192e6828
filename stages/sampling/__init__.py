"""Where to read: a walk over the cells, unbiased schemes to draw them, and what a draw estimates."""
