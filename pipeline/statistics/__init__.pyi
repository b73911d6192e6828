from .metrics import evaluate as evaluate
