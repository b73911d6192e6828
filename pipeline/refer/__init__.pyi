from .calibrate import calibrate_labels as calibrate_labels
from .label_set import LabelSet as LabelSet
from .measure import coverage as coverage
from .referral import Referral as Referral
from .scores import slide_scores as slide_scores
