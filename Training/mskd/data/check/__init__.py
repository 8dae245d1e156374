"""A check of a data set before anybody trains on it: reads every case once and finds what is planted in it."""

from mskd.data.check.finding import SEVERITIES, Finding, Severity
from mskd.data.check.measure import Measured
from mskd.data.check.report import Report
from mskd.data.check.run import check_dataset

__all__ = ["SEVERITIES", "Finding", "Measured", "Report", "Severity", "check_dataset"]
