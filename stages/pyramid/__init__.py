"""A slide as chunked OME-Zarr: opened, made, copied, exported, or shown with nothing copied."""
