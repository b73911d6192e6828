from .build import build_encoder as build_encoder
from .feature_store import FeatureKey as FeatureKey
from .feature_store import FeatureStore as FeatureStore
from .feature_store import feature_store as feature_store
from .patch_encoder import PatchEncoder as PatchEncoder
