from .build import build_encoder as build_encoder
from .patch_encoder import PatchEncoder as PatchEncoder
