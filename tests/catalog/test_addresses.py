"""Addresses: what GDAL is told, and what an address may not make it do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.catalog.addresses import archive_kind, gdal_path, is_safe_name, member_address, split_member
from earthmap.errors import ReadError


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/data/a.tif", "/data/a.tif"),
        ("file:///data/a.tif", "/data/a.tif"),
        ("https://host/a.tif?sig=1", "/vsicurl/https://host/a.tif?sig=1"),
        ("s3://bucket/a.tif", "/vsis3/bucket/a.tif"),
        ("zip:///data/a.zip!/b/c.jp2", "/vsizip/{/data/a.zip}/b/c.jp2"),
        ("zip+file:///data/a.zip!/b/c.jp2", "/vsizip/{/data/a.zip}/b/c.jp2"),
        ("tar:///data/a.tar!/b.TIF", "/vsitar/{/data/a.tar}/b.TIF"),
        ("zip+https://host/a.zip?x=1!/b.jp2", "/vsizip/{/vsicurl/https://host/a.zip?x=1}/b.jp2"),
        ("tar+s3://bucket/a.tar!/b.TIF", "/vsitar/{/vsis3/bucket/a.tar}/b.TIF"),
    ],
)
def test_gdals_names(address: str, path: str) -> None:
    assert gdal_path(address) == path


@pytest.mark.parametrize(
    "address",
    [
        "/vsicurl/http://169.254.169.254/latest",
        "file:///vsimem/x",
        "ftp://host/a.tif",
        "zip:///vsicurl/http://host/a.zip!/b.tif",
        "zip+file:///vsicurl/http://host/a.zip!/b.tif",
        "zip:///data/a.zip!/../b.tif",
        "zip:///data/a.zip!//etc/passwd",
        "zip:///data/a.zip!/b/../../c.tif",
        "zip:///data/a.zip!/b}/c.tif",
        "zip:///data/a}/vsicurl/{b.zip!/c.tif",
        "zip:///data/a.zip!/b\\..\\c.tif",
        "zip:///data/a.zip!/",
        "zip:///data/a.zip",
        "zip+ftp://host/a.zip!/b.tif",
        "zip+zip:///data/a.zip!/b.zip!/c.tif",
        "tar://!/b",
        "zip:///data/a.zip!/b.tif\n",
    ],
)
def test_what_an_address_may_not_say(address: str) -> None:
    with pytest.raises(ReadError):
        gdal_path(address)


@pytest.mark.parametrize("archive", ["/data/a.zip", "https://host/a.zip?x=1", "s3://bucket/b/a.tar", "/d/!/a.ZIP"])
@given(parts=st.lists(st.text("abc.-_ é!", min_size=1, max_size=5), min_size=1, max_size=4))
def test_a_members_address_reads_back(archive: str, parts: list[str]) -> None:
    name = "/".join(parts)
    if not is_safe_name(name):
        return
    assert split_member(member_address(archive, name)) == (archive_kind(archive), archive, name)


def test_what_is_no_archive() -> None:
    assert archive_kind("/data/a.tif") is None
    assert archive_kind("/data/a.tar.gz") is None
    assert split_member("/data/a.zip") is None
    assert split_member("https://host/a!/b.tif") is None
