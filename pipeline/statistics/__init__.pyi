from .metrics import evaluate as evaluate
from .multilabel import evaluate_multilabel as evaluate_multilabel
from .ordinal import evaluate_ordinal as evaluate_ordinal
from .paired import auroc_difference as auroc_difference
from .regression import evaluate_regression as evaluate_regression
from .survival import evaluate_survival as evaluate_survival
