from .build import HEADS as HEADS
from .build import build_pooling as build_pooling
from .pooling import GatedPooling as GatedPooling
from .pooling import MeanPooling as MeanPooling
from .pooling import Pooled as Pooled
from .transmil import TransMILPooling as TransMILPooling
