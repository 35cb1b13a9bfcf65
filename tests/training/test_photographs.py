"""Pictures of any size stand on one square without being cut or enlarged, and shapes stay on what they outline."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from earthmap.sensors.views import NODATA_GREY
from earthmap.tasks.serialization import parse
from earthmap.training.conversations import Exchange
from earthmap.training.faults import Unfit
from earthmap.training.instructions import asked_of
from earthmap.training.photographs import fit_picture, open_picture
from tests.training.data_sets import picture


def _bytes(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def test_a_small_picture_is_padded_pixel_for_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    found = fit_picture(_bytes(pixels), "x", side_px=96)
    assert (np.moveaxis(found.levels, 0, -1)[:40, :64] == pixels).all()
    assert (found.levels[:, 40:] == NODATA_GREY).all()
    assert (found.levels[:, :, 64:] == NODATA_GREY).all()
    assert found.scale == (64 / 96, 40 / 96)
    assert found.seen_share == pytest.approx(64 * 40 / 96**2)


def test_a_large_picture_shrinks_to_means() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (128, 256, 3), dtype=np.uint8)
    found = fit_picture(_bytes(pixels), "x", side_px=128)
    means = pixels.reshape(64, 2, 128, 2, 3).mean(axis=(1, 3))
    assert np.abs(np.moveaxis(found.levels, 0, -1)[:64].astype(float) - means).max() <= 1.0
    assert found.scale == (1.0, 0.5)


@given(st.integers(32, 300), st.integers(32, 300), st.integers(0, 2**32 - 1))
def test_a_box_stays_on_what_it_frames(width: int, height: int, seed: int) -> None:
    side = 96
    rng = np.random.default_rng(seed)
    long = max(width, height, side)
    size = max(4, round(4 * long / side))
    left, top = int(rng.integers(0, width - size + 1)), int(rng.integers(0, height - size + 1))
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[top : top + size, left : left + size] = 255
    found = fit_picture(_bytes(pixels), "x", side_px=side)
    bins = [1000 * left / width, 1000 * top / height, 1000 * (left + size) / width, 1000 * (top + size) / height]
    told = f"ship:box[{','.join(str(round(value)) for value in bins)}]"
    answer = asked_of(Exchange(question="Find the ships.", answer=told), scale=found.scale).answer
    box = parse(answer).instances[0].geometry
    assert box is not None
    rows, columns = np.nonzero(found.levels[0] == 255)
    inside = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(np.array(box.bounds) * side - inside).max() <= 1.5  # half a bin twice, and the edge of a pixel


def test_what_is_transparent_is_not_seen() -> None:
    pixels = np.full((64, 64, 4), 255, np.uint8)
    pixels[:32, :, 3] = 0
    found = fit_picture(_bytes(pixels), "x", side_px=64)
    assert found.seen_share == 0.5
    assert (found.levels[:, :32] == NODATA_GREY).all()
    assert (found.levels[:, 32:] == 255).all()


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "damaged"),
        (b"GIF89a" + bytes(40), "damaged"),
        (_bytes(np.zeros((64, 64, 3), np.uint8), "JPEG")[:300], "damaged"),
        (_bytes(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))[:-2000], "damaged"),
        (_bytes(np.zeros((16, 64, 3), np.uint8)), "size"),
        (_bytes(np.zeros((64, 64 * 4 + 1, 3), np.uint8)), "size"),
        (_bytes(np.zeros((64, 64), np.uint16)), "unsupported"),
    ],
)
def test_what_is_no_whole_picture_is_named(data: bytes, cause: str) -> None:
    with pytest.raises(Unfit) as found:
        fit_picture(data, "x", side_px=64)
    assert found.value.cause == cause


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "WEBP", "BMP"])
def test_other_formats_are_read(kind: str) -> None:
    pixels = np.full((64, 64, 3), 77, np.uint8)
    assert np.abs(fit_picture(_bytes(pixels, kind), "x", side_px=64).levels.astype(int) - 77).max() <= 2


def test_pictures_are_read_from_their_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    file = picture(folder, "a.png")
    picture(tmp_path, "secret.png")
    assert open_picture("a.png", folder)[0] == file.read_bytes()
    assert open_picture(str(file), folder)[0] == file.read_bytes()
    for name, cause in (
        ("../secret.png", "outside"),
        (str(tmp_path / "secret.png"), "outside"),
        ("b.png", "missing"),
        ("a.png/b", "missing"),
        (".", "missing"),
        ("a\0b", "missing"),
        ("https://example.com/a.png", "missing"),
    ):
        with pytest.raises(Unfit) as found:
            open_picture(name, folder)
        assert found.value.cause == cause
