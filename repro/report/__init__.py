"""The report: tables, figures, verdicts and the page. Only reads records, and imports no torch."""

from repro.report.build import Report, build_report
from repro.report.figures.draw import draw_figures

__all__ = ["Report", "build_report", "draw_figures"]
