"""Archives of strangers: what is listed, what is left out, and what is refused before it is read."""

from __future__ import annotations

import contextlib
import io
import os
import random
import struct
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from earthmap.catalog.addresses import member_address
from earthmap.catalog.archives import MAX_MEMBERS, list_members, read_text
from earthmap.catalog.listing import list_images, split_date
from earthmap.catalog.products import read_xml
from earthmap.errors import CatalogError
from tests.catalog.image_files import drawn, pack_zip, write_raster
from tests.servers import file_server


def _zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_members_and_their_text(tmp_path: Path) -> None:
    packed = _zip(tmp_path / "a.zip", {"s.SAFE/MTD.xml": b"<a/>", "s.SAFE/b.tif": b"x" * 9})
    found = list_members(str(packed))
    assert [(member.name, member.size, member.refused) for member in found] == [
        ("s.SAFE/MTD.xml", 4, None), ("s.SAFE/b.tif", 9, None),
    ]  # fmt: skip
    assert read_text(member_address(str(packed), "s.SAFE/MTD.xml")) == b"<a/>"
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("./b_MTL.txt")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("c.tif")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    members = list_members(str(tmp_path / "a.tar"))
    assert [(member.name, member.refused) for member in members] == [
        ("b_MTL.txt", None), ("c.tif", "it is a link or a device, not a file"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["../../etc/x.tif", "/etc/x.tif", "a/../../x.tif", "a//x.tif", "a{b}/x.tif", "a\\x.tif"]
)
def test_members_that_leave_the_archive_are_left_out(tmp_path: Path, name: str) -> None:
    packed = _zip(tmp_path / "a.zip", {name: b"x", "b.tif": b"y"})
    listing = list_images([str(packed)])
    assert [file.name.partition("/")[2] for file in listing.files] == ["a/b.tif"]
    assert "does not stay inside" in listing.left_out[0].why


def test_an_archive_in_an_archive_is_left_out(tmp_path: Path) -> None:
    packed = _zip(tmp_path / "a.zip", {"inner.zip": b"PK", "inner2.tar": b"x"})
    assert [one.why[:24] for one in list_images([str(packed)]).left_out] == ["an archive in an archive"] * 2


def test_two_members_of_one_name_are_left_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.tif", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.tif", b"2")
    assert [one.why for one in list_images([str(tmp_path / "a.zip")]).left_out] == ["two members have this name"] * 2


def test_a_bomb_is_left_out_and_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.tif", b"0" * 1_000_000)
    data = bytearray(path.read_bytes())  # its directory says that it expands to three gigabytes
    place = data.rfind(b"PK\x01\x02")
    data[place + 24 : place + 28] = struct.pack("<I", 3 * 2**30)
    path.write_bytes(data)
    started = time.perf_counter()
    assert "expands to 3,221,225,472 bytes" in list_images([str(path)]).left_out[0].why
    assert time.perf_counter() - started < 1.0


def test_text_that_expands_without_end_is_refused(tmp_path: Path) -> None:
    packed = _zip(tmp_path / "a.zip", {"MTD_MSIL2A.xml": b" " * 40_000_000})
    with pytest.raises(CatalogError, match="longer than 32 MB"):
        read_text(member_address(str(packed), "MTD_MSIL2A.xml"))


def test_entities_are_refused(tmp_path: Path) -> None:
    laughs = b'<!DOCTYPE a [<!ENTITY l "ha"><!ENTITY m "&l;&l;">]><a>&m;</a>'
    (tmp_path / "a.xml").write_bytes(laughs)
    with pytest.raises(CatalogError, match="document type"):
        read_xml(str(tmp_path / "a.xml"))
    (tmp_path / "b.xml").write_bytes(b"<a>" * 200_000)
    with pytest.raises(CatalogError, match="is no XML"):
        read_xml(str(tmp_path / "b.xml"))


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(MAX_MEMBERS + 1):
            archive.writestr(zipfile.ZipInfo(f"{number}.tif"), b"")
    with pytest.raises(CatalogError, match="more than 20,000 files"):
        list_members(str(tmp_path / "a.zip"))


def test_a_huge_directory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 9, 9, 2**31, 0, 0)
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04" + end)
    with pytest.raises(CatalogError, match="directory of more than"):
        list_members(str(tmp_path / "a.zip"))


def test_broken_archives_are_named(tmp_path: Path) -> None:
    good = _zip(tmp_path / "good.zip", {f"{n}.tif": os.urandom(50) for n in range(20)}).read_bytes()
    chance = random.Random(7)
    for number in range(60):
        data = bytearray(good[: chance.randrange(len(good))] if number % 3 else good)
        for _ in range(5):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        path = tmp_path / ("bad.zip" if number % 2 else "bad.tar")
        path.write_bytes(data)
        with contextlib.suppress(CatalogError):  # and nothing else
            assert all(member.refused or member.name for member in list_members(str(path)))


def test_a_compressed_tar_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"x")
    with tarfile.open(tmp_path / "a.tar", "w:gz") as archive:
        archive.add(tmp_path / "a.tif", "a.tif")
    with pytest.raises(CatalogError, match="unpack it and give the folder"):
        list_members(str(tmp_path / "a.tar"))


def test_an_encrypted_member_is_left_out(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip", {"b.tif": b"x"})
    data = bytearray(path.read_bytes())
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert list_members(str(path))[0].refused == "it is encrypted"


def test_a_zip_on_a_server_is_read_in_parts(tmp_path: Path) -> None:
    write_raster(tmp_path / "in" / "2024-05-04_red.tif", drawn(10, 1))
    packed = pack_zip(tmp_path / "in", tmp_path / "a.zip")
    local = list_members(str(packed))
    with file_server(tmp_path) as server:
        assert list_members(f"{server.address}/a.zip") == local
        with pytest.raises(CatalogError, match="404"):
            list_members(f"{server.address}/none.zip")


# -- folders


def test_circles_of_links_end(tmp_path: Path) -> None:
    write_raster(tmp_path / "a" / "2024-05-04.tif", drawn(60, 1))
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "b").mkdir()
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "gone.tif").symlink_to(tmp_path / "nothing.tif")
    (tmp_path / "a" / "self.tif").symlink_to(tmp_path / "a" / "self.tif")
    listing = list_images([str(tmp_path / "a")])
    assert [file.address for file in listing.files] == [str(tmp_path / "a" / "2024-05-04.tif")]
    assert {one.address.rpartition("/")[2] for one in listing.left_out} == {"gone.tif", "self.tif"}


def test_formats_that_are_not_read_are_named(tmp_path: Path) -> None:
    for name in ("a.hdf", "b.vrt", "c.tar.gz", "readme.md", "d.tif.aux.xml"):
        (tmp_path / name).write_text("x")
    left_out = list_images([str(tmp_path)]).left_out
    assert [one.address.rpartition("/")[2] for one in left_out] == ["a.hdf", "b.vrt", "c.tar.gz"]


def test_versions_of_a_file(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "2024-05-04.tif", np.zeros((1, 300, 300), np.uint8))
    before = list_images([str(path)]).content_key()
    assert list_images([str(path)]).content_key() == before
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # the last pixel, the size and time kept
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    changed = list_images([str(path)]).content_key()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert len({before, changed, list_images([str(path)]).content_key()}) == 3


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"there is no image .*none\.tif"):
        list_images([str(tmp_path / "none.tif")])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a.tif@2011-05-24", ("a.tif", "2011-05-24")),
        ("a.tif@2011", ("a.tif", "2011")),
        ("a.tif@2011-05-24T10:20:30Z", ("a.tif", "2011-05-24T10:20:30Z")),
        ("a.tif", ("a.tif", None)),
        ("me@home.tif", ("me@home.tif", None)),
        ("https://user@host/a.tif", ("https://user@host/a.tif", None)),
        ("s3://b/a@x.tif@2011-05-24", ("s3://b/a@x.tif", "2011-05-24")),
    ],
)
def test_a_date_behind_a_path(text: str, parts: tuple[str, str | None]) -> None:
    assert split_date(text) == parts


def test_time_series_are_found_in_folders_and_not_in_archives(tmp_path: Path) -> None:
    import zipfile

    (tmp_path / "a.nc").write_text("x")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("c.nc", "x")
    listing = list_images([str(tmp_path)])
    assert [file.name.rpartition("/")[2] for file in listing.files if file.is_series] == ["a.nc"]
    assert [one.why for one in listing.left_out] == ["a time series is read from a folder, not from an archive"]
