from .backbone import Backbone as Backbone
from .build import build_encoder as build_encoder
from .card import EncoderCard as EncoderCard
from .load import load_backbone as load_backbone
from .patch_encoder import PatchEncoder as PatchEncoder
