"""What those who operate earthmap need: whether machine, cluster and storage are fit for runs (`earthmap doctor`)."""

from earthmap.operate.checkup import Checkup, Wanted, check_up
from earthmap.operate.findings import Finding, Verdict

__all__ = ["Checkup", "Finding", "Verdict", "Wanted", "check_up"]
