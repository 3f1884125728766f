"""Measurement of exported networks through the C++ solver."""

from mfik import needs_torch  # noqa: F401
from mfik.eval.card import CURVE_METRICS, model_card
from mfik.eval.evaluate import evaluate, format_table
from mfik.eval.protocol import run_protocol
from mfik.eval.report import write_report
from mfik.eval.tables import format_protocol
from mfik.eval.targets import KINDS, Targets, least_singular_value, load_targets, make_path, make_targets
from mfik.eval.uncertainty import (
    CALIBRATION_ROWS,
    LEVELS,
    ErrorCalibration,
    ErrorEstimate,
    Reliability,
    plot_reliability,
    reliability,
)

__all__ = [
    "CALIBRATION_ROWS",
    "CURVE_METRICS",
    "KINDS",
    "LEVELS",
    "ErrorCalibration",
    "ErrorEstimate",
    "Reliability",
    "Targets",
    "evaluate",
    "format_protocol",
    "format_table",
    "least_singular_value",
    "load_targets",
    "make_path",
    "make_targets",
    "model_card",
    "plot_reliability",
    "reliability",
    "run_protocol",
    "write_report",
]
