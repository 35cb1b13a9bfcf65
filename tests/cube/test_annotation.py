from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.catalog.scene import RadarAnnotation, scene_from_dict, scene_to_dict
from earthmap.cube import RasterioReader
from earthmap.cube.annotation import AnnotationError, radar_tables
from earthmap.cube.warp import Block
from earthmap.errors import ReadError
from tests.cube.annotations import calibration_xml, noise_xml
from tests.cube.conftest import scene, source
from tests.cube.swaths import Swath, target_around
from tests.cube.test_control import write_swath

SHAPE = (600, 800)
WHOLE = Block(0, 0, *SHAPE)


def gain(line: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    return 400.0 + line / 10 + pixel / 5  # linear both ways: interpolation is exact


def floor(line: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    return 200.0 + pixel / 4 + line / 3


def grid() -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float64))  # type: ignore[return-value]


# ── the formula ──────────────────────────────────────────────────────────────────────────────────────────────


def test_sigma_nought_is_what_it_was_made_from() -> None:
    line, pixel = grid()
    sigma = 10 ** (np.random.default_rng(1).uniform(-2.2, 0, SHAPE))
    stored = np.sqrt(sigma * gain(line, pixel) ** 2 + floor(line, pixel))
    tables = radar_tables(calibration_xml(gain, SHAPE), noise_xml(floor, SHAPE))
    np.testing.assert_allclose(tables.sigma0(stored, WHOLE, SHAPE), sigma, rtol=1e-5)
    rounded = tables.sigma0(np.rint(stored).astype(np.uint16), WHOLE, SHAPE)
    np.testing.assert_allclose(rounded, sigma, rtol=0.06)  # half a step of DN at the darkest


def test_azimuth_noise_multiplies_its_block() -> None:
    line, pixel = grid()
    blocks = [((0, 0, 599, 299), lambda at: 1.0 + at / 600), ((0, 300, 299, 799), lambda at: 0.5 + 0 * at)]
    tables = radar_tables(calibration_xml(gain, SHAPE), noise_xml(floor, SHAPE, azimuth=blocks))
    want = floor(line, pixel)
    want[:, :300] *= 1.0 + line[:, :300] / 600
    want[:300, 300:] *= 0.5
    np.testing.assert_allclose(tables.noise_at(WHOLE), want, rtol=1e-6)


def test_without_noise_nothing_is_removed() -> None:
    tables = radar_tables(calibration_xml(gain, SHAPE), None)
    got = tables.sigma0(np.full((1, 1), 500, np.uint16), Block(0, 0, 1, 1), SHAPE)
    np.testing.assert_allclose(got, (500 / 400) ** 2, rtol=1e-6)


def test_power_below_the_noise_is_zero_and_dn_zero_is_nodata() -> None:
    tables = radar_tables(calibration_xml(gain, SHAPE), noise_xml(floor, SHAPE))
    stored = np.full(SHAPE, 3, np.uint16)
    stored[:, 100] = 0
    got = tables.sigma0(stored, WHOLE, SHAPE)
    assert np.isnan(got[:, 100]).all()
    assert np.all(np.delete(got, 100, axis=1) == 0)


def test_border_noise_of_old_products_is_nodata() -> None:
    shape = (1400, 1300)
    stored = np.full(shape, 3, np.uint16)
    tables = radar_tables(calibration_xml(gain, shape), noise_xml(floor, shape, old=True))
    got = tables.sigma0(stored, Block(0, 0, *shape), shape)
    assert np.isnan(got[:500]).all()
    assert np.isnan(got[:, -500:]).all()
    assert np.all(got[500:-500, 500:-500] == 0)
    bright = tables.sigma0(np.full(shape, 300, np.uint16), Block(0, 0, *shape), shape)
    assert np.isfinite(bright).all()


def test_both_forms_of_the_noise_are_one() -> None:
    old, new = (radar_tables(calibration_xml(gain, SHAPE), noise_xml(floor, SHAPE, old=form)) for form in (True, False))
    np.testing.assert_array_equal(old.noise_at(WHOLE), new.noise_at(WHOLE))
    assert (old.border, new.border) == (True, False)


@given(top=st.integers(0, 590), left=st.integers(0, 790), rows=st.integers(1, 300), columns=st.integers(1, 300))
def test_a_block_has_the_bits_of_the_whole(top: int, left: int, rows: int, columns: int) -> None:
    block = Block(top, left, min(top + rows, 600), min(left + columns, 800))
    curved = radar_tables(
        calibration_xml(lambda line, pixel: 400 + np.sin(pixel / 70) * 30 + line**2 / 1e4, SHAPE),
        noise_xml(floor, SHAPE, azimuth=[((100, 50, 400, 500), lambda at: 1 + np.cos(at))]),
    )
    stored = np.random.default_rng(2).integers(0, 900, SHAPE, np.uint16)
    part = (slice(block.top, block.bottom), slice(block.left, block.right))
    np.testing.assert_array_equal(curved.sigma0(stored[part], block, SHAPE), curved.sigma0(stored, WHOLE, SHAPE)[part])


# ── hostile documents ────────────────────────────────────────────────────────────────────────────────────────

LAUGHS = b"""<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;">]><calibration>&y;</calibration>"""
OUTSIDE = b"""<!DOCTYPE a SYSTEM "file:///etc/passwd"><calibration/>"""


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"not xml",
        b"<calibration>",
        b"<calibration/>",
        LAUGHS,
        OUTSIDE,
        LAUGHS.decode().encode("utf-16"),
        b"<a>" * 100_000,
        b"<a>" * 40 + b"</a>" * 40,
        calibration_xml(lambda line, pixel: pixel * 0.0, SHAPE),
        calibration_xml(lambda line, pixel: pixel * np.nan + 1, SHAPE),
        calibration_xml(gain, SHAPE, lines=[0, 0]),
        calibration_xml(gain, SHAPE).replace(b"<line>40</line>", b"<line>4 0</line>"),
        calibration_xml(gain, SHAPE).replace(b">0 40 80", b">0 80 40"),
        calibration_xml(gain, SHAPE).replace(b">0 40 80", b">0 40"),
        calibration_xml(gain, SHAPE).replace(b">0 40 80", b">0 forty 80"),
    ],
    ids=range(16),
)
def test_documents_that_are_no_annotation(document: bytes) -> None:
    with pytest.raises(AnnotationError):
        radar_tables(document, None)


def test_noise_of_another_polarization() -> None:
    with pytest.raises(AnnotationError, match="two polarizations"):
        radar_tables(calibration_xml(gain, SHAPE), noise_xml(floor, SHAPE, polarization="VH"))


# ── through the reader ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def swath() -> Swath:
    return Swath(lon=12.0, lat=47.0, heading=-12.0, shape=SHAPE)


def product(folder: Path, swath: Swath, stored: np.ndarray, **documents: bytes) -> tuple[str, RadarAnnotation]:
    folder.mkdir(exist_ok=True)
    href = write_swath(folder / "vv.tiff", swath, stored)
    (folder / "calibration.xml").write_bytes(documents.get("calibration") or calibration_xml(gain, SHAPE))
    (folder / "noise.xml").write_bytes(documents.get("noise") or noise_xml(floor, SHAPE))
    return href, RadarAnnotation(calibration=str(folder / "calibration.xml"), noise=str(folder / "noise.xml"))


def read(href: str, annotation: RadarAnnotation, band: str = "vv") -> np.ndarray:
    plain = source(href, band, amplitude=True, nodata=0.0)
    return RasterioReader().read(dataclasses.replace(plain, annotation=annotation), target_around(12.0, 47.0))


def test_a_constant_sigma_nought_is_read_everywhere(tmp_path: Path, swath: Swath) -> None:
    line, pixel = grid()
    stored = np.rint(np.sqrt(0.08 * gain(line, pixel) ** 2 + floor(line, pixel))).astype(np.uint16)
    href, annotation = product(tmp_path / "a", swath, stored)
    got = read(href, annotation)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, 0.08, rtol=0.01)


@pytest.mark.parametrize("case", ["missing", "damaged", "polarization", "size"])
def test_annotation_that_cannot_be_used(case: str, tmp_path: Path, swath: Swath) -> None:
    stored = np.full(SHAPE, 200, np.uint16)
    documents = {"damaged": b"<calibration/>", "size": calibration_xml(gain, (600, 400))}
    chosen = {"calibration": documents[case]} if case in documents else {}
    href, annotation = product(tmp_path / "a", swath, stored, **chosen)
    if case == "missing":
        Path(annotation.calibration).unlink()
    with pytest.raises(ReadError) as caught:
        read(href, annotation, "vh" if case == "polarization" else "vv")
    assert caught.value.reason == {"missing": "never_published", "damaged": "damaged"}.get(case, "unsupported")
    assert caught.value.address == annotation.calibration
    assert "\n" not in str(caught.value)


def test_annotation_is_part_of_a_scene() -> None:
    annotation = RadarAnnotation(calibration="c.xml", noise="n.xml")
    with_it = scene("a", dataclasses.replace(source("a.tiff", "vv", amplitude=True), annotation=annotation))
    without = scene("a", source("a.tiff", "vv", amplitude=True))
    assert scene_from_dict(scene_to_dict(with_it)) == with_it
    assert scene_from_dict(scene_to_dict(without)) == without
    assert with_it.content_key() != without.content_key()
