"""A run's logged values as one HTML page that needs no server and no network."""

from lightning_nc.report.page import report_page
from lightning_nc.report.reading import NothingToReport
from lightning_nc.report.runs import Reading, Run, Series, read_runs

__all__ = ["NothingToReport", "Reading", "Run", "Series", "read_runs", "report_page"]
