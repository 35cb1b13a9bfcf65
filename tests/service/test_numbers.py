"""A host is the number that the operating system connects to, however it is written; and few numbers are public."""

from __future__ import annotations

import contextlib
import ipaddress
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from earthmap.errors import JobError
from earthmap.service.numbers import KEY_SERVICES, carried, is_key_service, is_public, parse_host, plain_number

V4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
V6 = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)
INNER = [ipaddress.IPv4Network(text) for text in ("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
                                                 "192.168.0.0/16", "100.64.0.0/10", "0.0.0.0/8", "224.0.0.0/4",
                                                 "240.0.0.0/4", "198.18.0.0/15")]  # fmt: skip
INSIDE = st.sampled_from(INNER).flatmap(lambda net: st.integers(0, net.num_addresses - 1).map(lambda n: net[n]))


def _piece(value: int, base: str) -> str:
    return {"decimal": f"{value}", "octal": f"0{value:o}", "hex": f"0x{value:x}", "HEX": f"0X{value:X}"}[base]


@st.composite
def spellings(draw: st.DrawFn) -> tuple[ipaddress.IPv4Address, str]:
    """A number, and one of the texts that C libraries read as it."""
    number = draw(V4)
    count = draw(st.integers(1, 4))
    octets = number.packed
    values = [*octets[: count - 1], int.from_bytes(octets[count - 1 :], "big")]
    bases = st.sampled_from(["decimal", "octal", "hex", "HEX"])
    return number, ".".join(_piece(value, draw(bases)) for value in values) + draw(st.sampled_from(["", "."]))


@given(spellings())
def test_every_spelling_is_the_same_number(case: tuple[ipaddress.IPv4Address, str]) -> None:
    number, text = case
    assert parse_host(text) == number


@given(st.text(alphabet="0123456789abcdefxX.-_", min_size=1, max_size=20))
@example("1.2.3.256")
@example("0x")
@example("127.0.0.09")
@example("4294967296")
@example("1.2.3.4.5")
def test_what_the_operating_system_takes_for_a_number_is_no_name(text: str) -> None:
    try:
        found = parse_host(text)
    except JobError:
        return
    with contextlib.suppress(OSError):
        known = socket.getaddrinfo(text, 80, flags=socket.AI_NUMERICHOST)
        assert {entry[4][0] for entry in known} == {str(found)}
    if isinstance(found, str):
        assert not found.rpartition(".")[2].isdigit()


@given(V6)
def test_ipv6_in_brackets(number: ipaddress.IPv6Address) -> None:
    for text in (number.compressed, number.exploded):
        assert parse_host(f"[{text}]") == plain_number(number)


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "a..b", "a.b..", ".a", "a b", "a/b", "a@b", "a:b", "a%2eb", "a\\b", "a\r\nb", "é.example", "①②⑦.⓪.⓪.①",
        "127。0。0。1", "[::1", "::1]", "[::1%lo]", "[fe80::1%25eth0]", "[1.2.3.4]", "[]", "-a.example", "a-.example",
        "x" * 64, ".".join(["x" * 60] * 5), "[::ffff:127.0.0.1]x", "a\x00b",
    ],
)  # fmt: skip
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(JobError, match="is not a host"):
        parse_host(text)


def test_names() -> None:
    assert parse_host("S3.us-west-2.AmazonAWS.com.") == "s3.us-west-2.amazonaws.com"
    assert parse_host("xn--mnchen-3ya.example") == "xn--mnchen-3ya.example"
    assert parse_host("my_bucket.example") == "my_bucket.example"


def _forms(number: ipaddress.IPv4Address) -> list[ipaddress.IPv6Address]:
    """All IPv6 numbers here that carry `number`."""
    value = int(number)
    carriers = [0xFFFF << 32, 0, 0xFFFF_0000 << 32, 0x64_FF9B << 96, (0x2A00_1450 << 96) | (0x5EFE << 32),
                (0x2A00_1450 << 96) | (0x0200_5EFE << 32)]  # fmt: skip
    teredo = [(0x2001_0000 << 96) | (0x0808_0808 << 64) | (value ^ 0xFFFF_FFFF), (0x2001_0000 << 96) | (value << 64)]
    return [
        ipaddress.IPv6Address(each) for each in [*(c | value for c in carriers), (0x2002 << 112) | value << 80, *teredo]
    ]


@given(INSIDE)
def test_no_form_of_an_inner_number_is_public(number: ipaddress.IPv4Address) -> None:
    assert not is_public(number)
    for form in _forms(number):
        assert not is_public(form), form


@given(
    st.sampled_from([n for n in KEY_SERVICES if n.version == 4]).map(
        lambda network: network[network.num_addresses // 2]
    )
)
def test_where_keys_are_is_known_in_every_form(number: ipaddress.IPv4Address) -> None:
    assert is_key_service(number)
    assert all(is_key_service(form) for form in _forms(number))


@given(st.one_of(V4, V6))
def test_public_is_never_more_than_python_says(number: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if is_public(number):
        assert number.is_global
        odd = (number.is_multicast, number.is_loopback, number.is_link_local, number.is_unspecified, number.is_private)
        assert not any(odd)


@pytest.mark.parametrize("text", ["8.8.8.8", "52.218.0.1", "99.255.255.255", "2a00:1450:4001::200e", "2600:1f18::1",
                                  "64:ff9b::8.8.8.8"])  # fmt: skip
def test_public_ones(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "64:ff9b:1::8.8.8.8",
                                  "2001:db8::1", "3fff::1", "5f00::1", "4000::1", "100::1", "2001:10::1", "fec0::1",
                                  "168.63.129.16", "192.0.0.192", "100.100.100.200", "255.255.255.255"])  # fmt: skip
def test_others(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


def test_most_numbers_carry_none() -> None:
    assert carried(ipaddress.ip_address("2a00:1450::1")) == () == carried(ipaddress.ip_address("8.8.8.8"))
