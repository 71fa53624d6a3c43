"""The report: tables, figures, verdicts and the page. Only reads records, and imports no torch."""

from repro.report.build import Report, build_report

__all__ = ["Report", "build_report"]
