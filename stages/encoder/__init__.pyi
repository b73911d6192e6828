from .build import build_encoder as build_encoder
from .feature_store import FeatureKey as FeatureKey
from .feature_store import FeatureStore as FeatureStore
from .patch_encoder import PatchEncoder as PatchEncoder
