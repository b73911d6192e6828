"""From a draw's estimate to class probabilities with intervals."""
