"""Kinds of labels that a model can predict, and of evidence for them."""

from typing import Literal

Kind = Literal["classification", "multilabel", "ordinal", "regression", "survival", "discrete_survival"]
"""A class of several; several labels at once; a grade; a number; the risk of an event, and that over time."""

READ, FORETOLD, INTERPOLATED = 1, 2, 3
"""What a cell's evidence is told from: its own patch; what the model knows of it without; patches that look like it."""
