"""The model: attention, draw, reading, encoding and prediction, composed once; and its checkpoint."""
