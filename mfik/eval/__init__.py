"""Measurement of exported networks through the C++ solver."""

from mfik.eval.evaluate import evaluate, format_table
from mfik.eval.targets import REFERENCES, Targets, load_targets, make_targets
from mfik.eval.uncertainty import LEVELS, ErrorCalibration, ErrorEstimate, Reliability, plot_reliability, reliability

__all__ = [
    "LEVELS",
    "REFERENCES",
    "ErrorCalibration",
    "ErrorEstimate",
    "Reliability",
    "Targets",
    "evaluate",
    "format_table",
    "load_targets",
    "make_targets",
    "plot_reliability",
    "reliability",
]
