"""The demo: slides made from real stained tissue, and the whole flow run on them."""
