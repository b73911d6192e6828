"""Kinds of labels that a model can predict."""

from typing import Literal

Kind = Literal["classification", "multilabel", "ordinal", "regression", "survival", "discrete_survival"]
"""A class of several; several labels at once; a grade; a number; the risk of an event, and that over time."""
