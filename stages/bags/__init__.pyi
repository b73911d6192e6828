from .bag import Bag as Bag
from .bag import BagError as BagError
from .bag import read_bag as read_bag
