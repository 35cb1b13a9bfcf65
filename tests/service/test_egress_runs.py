"""A run of a user reaches its catalogue through the proxy, or not at all."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from earthmap.service.database import open_database
from earthmap.service.egress import egress_thread
from earthmap.service.egress_rules import entry_of, make_rules
from earthmap.service.jobs import ProcessRunner
from earthmap.service.processes import Offer
from earthmap.service.state import JobStore
from tests.service.egress_servers import origin

INPUTS = {"area": [4.0, 45.0, 4.1, 45.1], "queries": ["Where is water?"]}


@pytest.mark.slow
@pytest.mark.parametrize("allowed", [False, True])
def test_a_run_reaches_its_catalogue_through_the_proxy_or_not_at_all(tmp_path: Path, allowed: bool) -> None:
    store = JobStore(open_database(tmp_path / "state.sqlite"))
    job = store.submit("map", INPUTS, owner="ada")
    assert job is not None
    with origin() as catalogue:
        catalogue.files["/catalog.json"] = b'{"type": "FeatureCollection", "features": []}'
        address = f"http://127.0.0.1:{catalogue.port}/catalog.json"
        with egress_thread(make_rules([entry_of(address)] if allowed else [])) as egress:
            offer = Offer(catalogs={"inner": address})
            runner = ProcessRunner(root=str(tmp_path / "runs"), offer=offer, environment=egress.environment())
            runner.start(job)
            end = time.monotonic() + 60
            while (standing := runner.progress(job.id)).fault is None:
                assert time.monotonic() < end
                assert standing.result is None
                time.sleep(0.05)
            counts = egress.counts
        assert catalogue.connections == counts.allowed
    assert (counts.allowed > 0) is allowed
    assert bool(counts.refused) is not allowed
    assert ("the egress proxy refuses it" in str(standing.fault)) is not allowed
    store.database.close()
