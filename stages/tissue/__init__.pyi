from .mask import NoTissueError as NoTissueError
from .mask import Tissue as Tissue
from .mask import find_tissue as find_tissue
from .mask import tissue_mask as tissue_mask
from .quality import tissue_warnings as tissue_warnings
from .thumbnail import Thumbnail as Thumbnail
from .thumbnail import read_thumbnail as read_thumbnail
