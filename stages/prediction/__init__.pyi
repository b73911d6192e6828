from .conformal import Conformal as Conformal
from .conformal import conformalize as conformalize
from .intervals import Calibration as Calibration
from .intervals import Evidence as Evidence
from .intervals import fit_calibration as fit_calibration
from .intervals import weigh as weigh
from .predict import Prediction as Prediction
