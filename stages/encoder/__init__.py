"""Patches to features: the built-in network, any timm model, or a local checkpoint of either."""
