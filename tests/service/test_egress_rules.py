"""An allow-list opens what it names and nothing else."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import JobError
from earthmap.service.egress_rules import EgressRules, Refusal, entry_of, make_rules, parse_listed

PUBLIC, INNER = ipaddress.ip_address("8.8.8.8"), ipaddress.ip_address("10.2.0.1")


def test_usual_rules() -> None:
    rules = make_rules()
    assert rules.refusal("a.example", PUBLIC, port=443) is None
    assert rules.refusal("a.example", PUBLIC, port=80, plain=True) is Refusal.PLAIN_HTTP
    assert rules.refusal("a.example", PUBLIC, port=443, plain=True) is Refusal.PLAIN_HTTP
    assert rules.refusal("a.example", PUBLIC, port=22) is Refusal.PORT
    assert rules.refusal("a.example", INNER, port=443) is Refusal.NOT_PUBLIC
    assert make_rules(plain_http=True).refusal("a.example", PUBLIC, port=80, plain=True) is None


@pytest.mark.parametrize(
    ("entry", "host", "number", "port", "passes"),
    [
        ("stac.inside.example:8080", "stac.inside.example", "10.2.0.1", 8080, True),
        ("stac.inside.example:8080", "stac.inside.example", "10.2.0.1", 443, False),
        ("stac.inside.example:8080", "evil.stac.inside.example", "10.2.0.1", 8080, False),
        ("stac.inside.example", "stac.inside.example", "10.2.0.1", 443, True),
        ("stac.inside.example", "stac.inside.example", "10.2.0.1", 22, False),
        (".inside.example", "a.b.inside.example", "10.2.0.1", 443, True),
        (".inside.example", "inside.example", "10.2.0.1", 443, False),
        (".inside.example", "evilinside.example", "10.2.0.1", 443, False),
        ("10.2.0.0/16:9000", "any.example", "10.2.0.1", 9000, True),
        ("10.2.0.0/16:9000", "any.example", "10.3.0.1", 9000, False),
        ("10.2.0.1", "any.example", "10.2.0.1", 443, True),
        ("0x0a020001", "any.example", "10.2.0.1", 443, True),
        ("10.2.0.0/16", "any.example", "::ffff:10.2.0.1", 443, True),
        ("[fd00:1::/64]:9000", "any.example", "fd00:1::7", 9000, True),
        ("[::1]:9000", "any.example", "::1", 9000, True),
        ("169.254.0.0/16", "any.example", "169.254.169.254", 443, False),
        ("metadata.example", "metadata.example", "169.254.169.254", 443, False),
        ("metadata.example", "metadata.example", "::ffff:169.254.169.254", 443, False),
    ],
)
def test_entries(entry: str, host: str, number: str, port: int, passes: bool) -> None:
    refusal = make_rules([entry]).refusal(host, ipaddress.ip_address(number), port=port, plain=True)
    assert (refusal is None) is passes


@pytest.mark.parametrize("text", ["", ":80", "a:0", "a:65536", "a b", "0.0.0.0/0", "[::/0]", "10.0.0.1/8", "a/b", "*",
                                  "..a",
                                  "https://a.example", "fd00::1", "user@a.example", "[a.example]:80"])  # fmt: skip
def test_what_is_no_entry(text: str) -> None:
    with pytest.raises(JobError, match=r"cannot be allowed.*for example"):
        parse_listed(text)


def test_what_is_denied_is_never_reached() -> None:
    rules = make_rules(["a.example", "11.0.0.0/8"], denied=["11.0.0.0/8", "2a00::/32"])
    for number in ("11.1.2.3", "::ffff:11.1.2.3", "64:ff9b::11.1.2.3", "2a00::1"):
        assert rules.refusal("a.example", ipaddress.ip_address(number), port=443) is Refusal.NOT_PUBLIC
    assert rules.refusal("a.example", PUBLIC, port=443) is None
    with pytest.raises(JobError, match="cannot be allowed"):
        make_rules(denied=["11.0.0.0/33"])


@pytest.mark.parametrize(
    ("address", "entry"),
    [("http://stac.inside.example/", "stac.inside.example:80"), ("https://[fd00:1::7]:9000/a", "[fd00:1::7]:9000"),
     ("HTTPS://user:pw@10.2.0.7/", "10.2.0.7:443")],
)  # fmt: skip
def test_the_host_of_an_address_is_opened(address: str, entry: str) -> None:
    assert entry_of(address) == entry
    assert parse_listed(entry).port


@pytest.mark.parametrize(
    "address", ["/data/catalog.json", "s3://bucket/a", "https://", "https://a..b/", "http://a:99999/"]
)
def test_what_has_no_host_opens_none(address: str) -> None:
    with pytest.raises(JobError, match="cannot be allowed"):
        entry_of(address)


def test_a_closed_list() -> None:
    rules = make_rules(["stac.example"], public=False)
    assert rules.refusal("stac.example", PUBLIC, port=443) is None
    assert rules.refusal("a.example", PUBLIC, port=443) is Refusal.NOT_LISTED
    with pytest.raises(JobError, match="ports"):
        make_rules(ports=[0])


NAMES = st.sampled_from(["a.example", "b.a.example", "c.example"])
NUMBERS = st.sampled_from(["8.8.8.8", "10.0.0.1", "169.254.169.254", "fd00::1"]).map(ipaddress.ip_address)


@given(NAMES, NUMBERS, st.sampled_from([22, 80, 443, 9000, 9001]), st.booleans(), st.booleans())
def test_what_has_no_outlook_is_refused_whatever_the_number(
    name: str, number: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, plain: bool, public: bool
) -> None:
    rules = make_rules(["a.example:9000", ".a.example", "10.0.0.0/8:9001"], public=public)
    if rules.outlook(name, port=port, plain=plain) is not None:
        assert rules.refusal(name, number, port=port, plain=plain) is not None
    assert rules.outlook(number, port=port, plain=plain) == rules.refusal(number, number, port=port, plain=plain)


def test_rules_are_small_and_equal() -> None:
    assert make_rules(["a.example:1"]) == EgressRules(listed=(parse_listed("A.example.:1"),))
