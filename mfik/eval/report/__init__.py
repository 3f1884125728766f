"""The report: one page that shows what `run_protocol` and some more measurements of a solver found."""

from mfik.eval.report.page import write_report

__all__ = ["write_report"]
