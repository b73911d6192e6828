from .bags import Patches as Patches
from .bags import write_clam as write_clam
from .bags import write_torchmil as write_torchmil
from .bags import write_torchmil_label as write_torchmil_label
from .bags import write_trident as write_trident
from .h5 import write_h5 as write_h5
from .qupath import write_qupath as write_qupath
