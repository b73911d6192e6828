from .backbone import Backbone as Backbone
from .build import build_encoder as build_encoder
from .card import EncoderCard as EncoderCard
from .feature_store import FeatureKey as FeatureKey
from .feature_store import FeatureStore as FeatureStore
from .load import load_backbone as load_backbone
from .patch_encoder import PatchEncoder as PatchEncoder
