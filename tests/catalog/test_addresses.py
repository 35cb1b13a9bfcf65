"""Addresses: what GDAL is told, and what an address may not make it do."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.catalog import MemoryCatalog, Wanted, find_scenes, open_catalog, search_items
from earthmap.catalog.addresses import archive_kind, check_href, gdal_path, is_safe_name, member_address, split_member
from earthmap.errors import ReadError, SensorError


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


# ── what a catalogue may name ────────────────────────────────────────────────────────────────────────────────

_PUBLIC, _INSIDE, _LOCAL = "https://earth-search.example.org/v1", "http://10.1.2.3/stac", "/data/catalog.json"


@pytest.mark.parametrize(
    ("href", "catalogue"),
    [
        ("https://example.org/a.tif", _PUBLIC),
        ("s3://bucket/a.tif", _PUBLIC),
        ("https://example.org/a.tif", _LOCAL),
        ("/data/a.tif", _LOCAL),
        ("file:///data/a.tif", _LOCAL),
        ("zip:///data/a.zip!/b.tif", _LOCAL),
        ("http://10.1.2.4/a.tif", _INSIDE),
        ("http://127.0.0.1:8000/a.tif", "http://127.0.0.1:8000/catalog.json"),
        ("http://10.1.2.4/a.tif", _LOCAL),
        ("https://1.1.1.1/a.tif", _PUBLIC),
    ],
)
def test_what_a_catalogue_may_name(href: str, catalogue: str) -> None:
    check_href(href, catalogue=catalogue)


@pytest.mark.parametrize(
    ("href", "catalogue"),
    [
        ("/etc/passwd", _PUBLIC),
        ("file:///etc/passwd", _PUBLIC),
        ("FILE:///etc/passwd", _PUBLIC),
        ("zip:///home/me/a.zip!/b.tif", _PUBLIC),
        ("zip+file:///home/me/a.zip!/b.tif", _PUBLIC),
        ("/vsicurl/http://example.org/a.tif", _LOCAL),
        ("file:///vsicurl/http://example.org/a.tif", _LOCAL),
        ("ftp://example.org/a.tif", _LOCAL),
        ("gs://bucket/a.tif", _PUBLIC),
        ("http://127.0.0.1/a.tif", _PUBLIC),
        ("http://127.1/a.tif", _PUBLIC),
        ("http://localhost:9000/a.tif", _PUBLIC),
        ("http://a.localhost/a.tif", _PUBLIC),
        ("http://192.168.0.1/a.tif", _PUBLIC),
        ("http://[::1]/a.tif", _PUBLIC),
        ("http://[::ffff:10.0.0.1]/a.tif", _PUBLIC),
        ("http://169.254.169.254/latest/meta-data/a.tif", _LOCAL),
        ("http://169.254.169.254/latest/meta-data/a.tif", _INSIDE),
        ("http://me@169.254.169.254/a.tif", _PUBLIC),
        ("http://2852039166/a.tif", _INSIDE),
        ("http://0xa9fea9fe/a.tif", _INSIDE),
        ("http://0251.0376.0251.0376/a.tif", _INSIDE),
        ("http://[::ffff:169.254.169.254]/a.tif", _INSIDE),
        ("http://[fe80::1%25eth0]/a.tif", _INSIDE),
        ("http://[fd00:ec2::254]/a.tif", _INSIDE),
        ("http://metadata.google.internal/a.tif", _INSIDE),
        ("http://metadata.google.internal./a.tif", _INSIDE),
        ("zip+http://169.254.169.254/a.zip!/b.tif", _INSIDE),
        ("http://[::1/a.tif", _PUBLIC),
    ],
)
def test_what_no_catalogue_may_name(href: str, catalogue: str) -> None:
    with pytest.raises(ReadError) as caught:
        check_href(href, catalogue=catalogue)
    assert caught.value.reason == "forbidden_address"


def test_an_item_that_names_a_file_of_this_machine_is_refused(drawn_catalog: Path) -> None:
    """The same items as a local catalogue and as one of a service: only the first may name local files."""
    items = []
    for found in search_items(open_catalog(str(drawn_catalog)), Wanted()):
        item = copy.deepcopy(dict(found.item))
        for asset in item["assets"].values():
            asset["href"] = "file://" + str((Path(found.base).parent / asset["href"]).resolve())
        item["links"] = []
        items.append(item)
    assert find_scenes(MemoryCatalog(items, address=str(drawn_catalog)), None).refused == ()
    with pytest.raises(SensorError, match="names a file of this machine"):
        find_scenes(MemoryCatalog(items, address=_PUBLIC), None)
