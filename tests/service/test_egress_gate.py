"""Where the egress proxy of a service listens, and the secret in its address."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from earthmap.connection import handed_on
from earthmap.errors import JobError
from earthmap.service.egress import egress_thread, proxied_environment
from earthmap.service.egress_gate import Gate, make_gate
from earthmap.service.egress_rules import make_rules


@pytest.mark.parametrize(
    ("told", "cluster", "host", "port"),
    [
        (None, None, "127.0.0.1", 0),
        (None, "127.0.0.1:6379", "127.0.0.1", 0),
        (None, "ray://127.0.0.1:10001", "127.0.0.1", 0),
        (None, "[::1]:6379", "::1", 0),
        ("10.0.0.5", "10.0.0.1:6379", "10.0.0.5", 0),
        ("10.0.0.5:3128", None, "10.0.0.5", 3128),
        ("[fd00::5]:3128", None, "fd00::5", 3128),
        ("egress.inside.example:3128", "auto", "egress.inside.example", 3128),
    ],
)
def test_where_it_listens(told: str | None, cluster: str | None, host: str, port: int) -> None:
    gate = make_gate(told, cluster=cluster)
    assert (gate.host, gate.port) == (host, port)
    assert gate.secret != make_gate(told, cluster=cluster).secret
    assert len(gate.secret or "") >= 40
    parts = urlsplit(gate.address("fd00::5" if ":" in host else host, 3128))
    assert (parts.password, parts.port) == (gate.secret, 3128)


@pytest.mark.parametrize("told", ["0.0.0.0:3128", "[::]", "a b", "http://a:1", "a:99999", ":3128", "", "user@a:1"])
def test_what_is_no_place_is_refused(told: str) -> None:
    with pytest.raises(JobError, match=r"--egress 10\.0\.0\.5:3128"):
        make_gate(told, cluster=None)


@pytest.mark.parametrize("cluster", ["auto", "head", "no-such-host.invalid:6379", "127.0.0.1:x"])
def test_a_cluster_that_does_not_tell_where_it_is(cluster: str) -> None:
    with pytest.raises(JobError, match="name that number with --egress"):
        make_gate(None, cluster=cluster)


def test_an_address_of_another_machine_is_told() -> None:
    with (
        pytest.raises(JobError, match=r"cannot listen on 192\.0\.2\.1:0"),
        egress_thread(make_rules(), gate=Gate(host="192.0.2.1")),
    ):
        pytest.fail("nobody listens there")


def test_what_workers_get() -> None:
    variables = proxied_environment("http://earthmap:s3cret@10.0.0.5:3128")
    others = {"AWS_SECRET_ACCESS_KEY": "k", "PATH": "/bin", "RAY_AUTH_TOKEN": "t"}
    assert handed_on(variables | others) == variables
    assert handed_on(others) == {}
    assert handed_on({"EARTHMAP_HANDED_ON": "A,,B", "B": ""}) == {"EARTHMAP_HANDED_ON": "A,,B", "B": ""}
