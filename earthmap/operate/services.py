"""What the clocks of services say, by the Date header of their answers (RFC 9110, 6.6.1)."""

from __future__ import annotations

import datetime
import email.utils
import time

from earthmap.cube.failures import probe
from earthmap.operate.findings import Finding, ok, warning
from earthmap.operate.storage import judge_skew


def check_service_clock(address: str) -> Finding:
    """How far this machine's clock is from that of the service at an http(s) address."""
    name = "clock.service"
    before = time.time()
    answer = probe(address)
    after = time.time()
    if answer is None or answer.status is None:
        return warning(
            name, f"{address} does not answer", expected="an answer", fix="check the address, the network and the proxy"
        )
    stated = _seconds(answer.date)
    if stated is None:
        return ok(name, f"{address} does not say what time it is")
    return judge_skew(name, address, stated - before, stated - after)


def _seconds(date: str | None) -> float | None:
    try:
        stated = email.utils.parsedate_to_datetime(date or "")
    except ValueError:
        return None
    return (stated if stated.tzinfo else stated.replace(tzinfo=datetime.UTC)).timestamp()
