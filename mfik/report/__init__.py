"""Pages of measurements: HTML and matplotlib's pictures, readable in light and dark; knows nothing of robots."""

from mfik.report.page import Page, cpu_name, has_matplotlib

__all__ = ["Page", "cpu_name", "has_matplotlib"]
