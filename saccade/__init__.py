"""The door: what users import."""
