"""A request names https addresses, and nothing that a reader would take for anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.catalog.addresses import check_href
from earthmap.errors import JobError, ReadError
from earthmap.service.addresses import Nameable
from earthmap.service.egress_rules import make_rules

PUBLIC = Nameable()

NEVER = [
    "", "/etc/passwd", "etc/passwd", "../a.tif", "~/a.tif", "C:\\a.tif", "a.tif", ".", "-", "@", "FILE:///a",
    "file:///etc/passwd",
    "file:/etc/passwd", "file://host/a", "data:image/tiff;base64,AAAA", "data://a", "ftp://a.example/a", "https:a",
    "gopher://a.example/", "jar:https://a.example/a", "\\\\host\\share", "//a.example/a", "https:/a.example/a",
    "/vsicurl/https://a.example/a.tif", "/vsicurl?url=https://a.example/a.tif", "/vsis3/bucket/a.tif", "/vsigs/a",
    "/vsizip//etc/a.zip", "/vsimem/a", "/vsistdin/", "/vsisubfile/0_10,/etc/passwd", "/VSICURL/https://a.example/a",
    "vsicurl/https://a.example/a", "zip:///data/a.zip!/b.tif", "tar:///data/a.tar!/b.tif", "zip+file:///a.zip!/b.tif",
    "zip+/a.zip!/b.tif", "zip+ftp://a.example/a.zip!/b.tif", "zip+https://a.example/a.zip!/../b.tif",
    "zip+https://a.example/a.zip", "zip+zip:///a.zip!/b.zip!/c.tif", "WMS:https://a.example/?LAYERS=a", "WMTS:https://a.example",
    "WCS:https://a.example", "<GDAL_WMS><Service/></GDAL_WMS>", "<VRTDataset/>", '{"type":"Raster"}', "{json}",
    'HDF5:"https://a.example/a.h5"://x', "NETCDF:https://a.example/a.nc:b", "GTIFF_DIR:1:https://a.example/a.tif",
    "SENTINEL2_L2A:https://a.example/a", "ZARR:https://a.example/a", 'ZARR:"/vsicurl/https://a.example/a"', "PG:host=a",
    "MVT:https://a.example", "STACTA:https://a.example", "STACIT:https://a.example", "vrt:https://a.example/a.tif",
    "vrt://https://a.example/a.tif", "derived_subdataset:a:b", "DERIVED_SUBDATASET:LOGAMPLITUDE:https://a.example/a",
    "GS:a", "gs://bucket/a.tif", "az://a/b", "adl://a/b", "hdfs://a/b", "s3a://bucket/a", "oci://a", "S3:bucket",
    "https://", "https:///a", "https://user@a.example/a", "https://user:pw@a.example/a", "https://a.example@b.example/a",
    "https://a.example:pw@/", "https://a.example:0x50/", "https://a.example:99999/", "https://a.example:80:80/", "https://a..b/",
    "https://a.example\\@b.example/", "https://a.example/a b", "https://a.example/a\r\nX: 1", "https://a.example/\x00",
    "https://a.example/{a}", "https://a.example/<a>", "https://a.example/a#b", 'https://a.example/"', "https://é.example/",
    "https://①②⑦.⓪.⓪.①/", "https://127。0。0。1/", "https://[::1/", "https://[::1%25lo]/", "https://1.2.3.256/",
    "https://a.example/" + "x" * 3000, "http://a.example/", "https://a.example:22/", "https://a.example:80/",
]  # fmt: skip

INNER = [
    "https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/", "https://0/",
    "https://127.0.0.1./", "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://10.0.0.1/",
    "https://192.168.1.1/", "https://169.254.169.254/latest/meta-data/", "https://0xa9fea9fe/", "https://[fd00:ec2::254]/",
    "https://[64:ff9b::a00:1]/", "https://[2002:a00:1::]/", "https://100.64.0.1/", "https://224.0.0.1/",
]  # fmt: skip


@pytest.mark.parametrize("address", [*NEVER, *INNER])
def test_what_nobody_may_name(address: str) -> None:
    for text in (address, f"{address}@2024-06-01"):
        with pytest.raises(JobError, match="cannot be named") as caught:
            PUBLIC.check_image(text)
        assert ":pw@" not in str(caught.value)
    with pytest.raises(JobError):
        PUBLIC.check(address)


@pytest.mark.parametrize(
    "address",
    ["https://stac.example.org/v1", "HTTPS://stac.example.org/v1?a=b&c=%20", "https://8.8.8.8/a.tif", "https://a.example:443/",
     "https://xn--mnchen-3ya.example/", "zip+https://a.example/a.zip!/b/c.tif", "https://[2a00:1450:4001::200e]/a.tif"],
)  # fmt: skip
def test_what_anybody_may_name(address: str) -> None:
    PUBLIC.check(address)
    PUBLIC.check_image(f"{address}@2024-06-01T10:00:00Z")


def test_what_an_operator_opens() -> None:
    rules = make_rules(["stac.inside.example:8080", "10.2.0.0/16:9000"], plain_http=True)
    opened = Nameable(rules=rules, buckets=("open-bucket", "shared/maps"))
    for address in (
        "http://a.example/a.tif", "http://stac.inside.example:8080/", "http://10.2.3.4:9000/a", "http://minio.example:9000/a",
        "s3://open-bucket/a.tif", "s3://open-bucket", "s3://shared/maps/a.tif", "zip+s3://open-bucket/a.zip!/b.tif",
    ):  # fmt: skip
        opened.check(address)
    for address in (
        "http://10.3.0.1:9000/a", "http://stac.inside.example:8081/", "s3://other/a", "s3://shared/a.tif", "s3://shared/mapsother/a",
        "s3://shared/maps/../a.tif", "s3://shared/maps/%2e%2e/a.tif", "s3://open-bucket.evil/a", "s3://OPEN-BUCKET/a", "s3:///a",
        "s3://open-bucket@evil/a", "s3://open-bucket?x/a",
    ):  # fmt: skip
        with pytest.raises(JobError, match="cannot be named"):
            opened.check(address)
    with pytest.raises(JobError, match="cannot be named"):
        Nameable(rules=make_rules(["a.example"], public=False)).check("https://b.example/")
    with pytest.raises(JobError, match="no bucket"):
        Nameable(buckets=("s3://a",))


@given(st.text(max_size=40).filter(lambda text: "://" not in text))
def test_a_text_without_a_scheme_is_refused(text: str) -> None:
    with pytest.raises(JobError, match="cannot be named"):
        PUBLIC.check_image(text)


@given(st.sampled_from(["https://", "zip+https://", "HtTpS://"]), st.text(st.characters(codec="utf-8"), max_size=30))
def test_any_address_is_named_or_refused(scheme: str, text: str) -> None:
    try:
        PUBLIC.check(scheme + text)
    except JobError:
        return
    assert text.isascii()
    assert text.isprintable()


SPOKEN = (
    "/",
    "file",
    "data",
    "WMS",
    "<",
    "HDF5",
    "NETCDF",
    "ZARR",
    "vrt",
    "gs",
    "STAC",
    "DERIVED",
    "zip:",
    "tar:",
    "ftp",
)
AT_THE_PROXY = {"https://[64:ff9b::a00:1]/", "https://[2002:a00:1::]/", "https://224.0.0.1/"}
"""Refused where they are reached."""


@pytest.mark.parametrize("href", [*(one for one in NEVER if one.startswith(SPOKEN)), *sorted({*INNER} - AT_THE_PROXY)])
def test_the_items_of_a_catalogue_name_nothing_else_either(href: str) -> None:
    with pytest.raises(ReadError, match=r"is not read|cannot be read"):
        check_href(href, catalogue="https://stac.example.org/v1")
