"""Measurement of exported networks through the C++ solver."""

from mfik.eval.evaluate import evaluate, format_table
from mfik.eval.targets import REFERENCES, Targets, load_targets, make_targets

__all__ = ["REFERENCES", "Targets", "evaluate", "format_table", "load_targets", "make_targets"]
