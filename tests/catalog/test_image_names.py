"""What names of image files say."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.catalog.image_names import date_in_name, date_in_tag, no_image, read_name
from earthmap.catalog.intervals import format_time


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("T31TFJ_20240504T105031_B04_10m.jp2", "2024-05-04T10:50:31Z"),
        ("S2A_MSIL2A_20240504T105031_N0510_R051_T31TFJ_20240504T141503.SAFE", "2024-05-04T10:50:31Z"),
        ("s1a-iw-grd-vv-20210809t173953-20210809t174018-039156-049f13-001.tiff", "2021-08-09T17:39:53Z"),
        ("LC08_L2SP_001062_20201031_20201106_02_T2_SR_B4.TIF", "2020-10-31T00:00:00Z"),
        ("LC08_L1TP_224077_20200518_20200518_01_RT_B3.tif", "2020-05-18T00:00:00Z"),
        ("LC80010622020305LGN00_B4.TIF", "2020-10-31T00:00:00Z"),
        ("2024-05-04.tif", "2024-05-04T00:00:00Z"),
        ("flood_2018_07_16.tif", "2018-07-16T00:00:00Z"),
        ("flood.2018.07.16.tif", "2018-07-16T00:00:00Z"),
        ("20240504.tif", "2024-05-04T00:00:00Z"),
        ("20240504105031.tif", "2024-05-04T10:50:31Z"),
        ("IMG20240504.jpg", "2024-05-04T00:00:00Z"),
        ("2024-05-04T10-50-31.tif", "2024-05-04T10:50:31Z"),
        ("20240504_105031_12_2455_3B_AnalyticMS_SR.tif", "2024-05-04T10:50:31Z"),
        ("m_3807708_sw_18_060_20180825_20190209.tif", "2018-08-25T00:00:00Z"),
        ("22AUG24105031-M2AS-0133.tif", "2022-08-24T10:50:31Z"),
        ("field 16-Jul-2018.tif", "2018-07-16T00:00:00Z"),
        ("MOD09GA.A2018197.h18v04.tif", "2018-07-16T00:00:00Z"),
        ("A2020366.tif", "2020-12-31T00:00:00Z"),
        ("1985.tif", "1985-01-01T00:00:00Z"),
        ("2018-07.tif", "2018-07-01T00:00:00Z"),
        ("2018_07_16/visual.tif", "2018-07-16T00:00:00Z"),
        ("2018_07_16/tiles_20190102/visual.tif", "2019-01-02T00:00:00Z"),
    ],
)
def test_dates_of_all_schemes(name: str, start: str) -> None:
    found = date_in_name(name)
    assert found is not None
    assert found.start is not None
    assert format_time(found.start) == start


@pytest.mark.parametrize(
    "name",
    [
        "Spain_7370579_S2Hand_west.tif", "tile_31500-6161.tif", "x20240230.tif", "A2019366.tif", "103001010B9A1B00.tif",
        "10300100B20190904.tif", "hurricane-florence_00000004_pre_disaster.png", "ms1.tif", "", "/", "a/1985/ms.tiff.d",
        "m_4709963_se_14_1.tif", "20241301.tif", "2018197123.tif", "99999999.tif", "scene_2018.tif",
    ],
)  # fmt: skip
def test_what_is_no_date(name: str) -> None:
    assert date_in_name(name.replace("1985/", "b/")) is None


@given(
    day=st.dates(datetime.date(1972, 7, 23), datetime.date(2099, 12, 31)),
    shape=st.sampled_from(["%Y%m%d", "%Y-%m-%d", "%Y_%m_%d", "%d%b%Y", "A%Y%j"]),
)
def test_every_day_in_every_shape(day: datetime.date, shape: str) -> None:
    found = date_in_name(f"scene_{day.strftime(shape)}.tif")
    assert found is not None
    assert found.start is not None
    assert found.start.date() == day


@given(name=st.text(max_size=60))
def test_any_name_is_read(name: str) -> None:
    read_name(name)
    date_in_name(name)
    date_in_tag(name)
    no_image(name)


@pytest.mark.parametrize(
    ("name", "band", "platform", "level"),
    [
        ("T31TFJ_20240504T105031_B04_10m.jp2", "B04", "sentinel-2", "L2A"),
        ("T31TFJ_20240504T105031_B8A.jp2", "B8A", "sentinel-2", "L1C"),
        ("S2A_29RKH_20200219_0_L2A/B8A.tif", "B8A", "sentinel-2a", "L2A"),
        ("S2C_MSIL1C_20250504T105031_N0511_R051_T31TFJ_20250504T141503/SCL.tif", "SCL", "sentinel-2c", "L1C"),
        ("LC08_L2SP_198030_20240504_20240511_02_T1_SR_B4.TIF", "SR_B4", "landsat-8", "L2SP"),
        ("LE07_L1TP_198030_20020504_20200511_02_T1_B6.TIF", "B6", "landsat-7", "L1TP"),
        ("LC09_L2SP_198030_20240504_20240511_02_T1_QA_PIXEL.TIF", "QA_PIXEL", "landsat-9", "L2SP"),
        ("S1A_IW_GRDH_1SDV_20170613T165043_33UUP_61_39_VV.tif", "VV", "sentinel-1a", None),
        ("s1c-iw-grd-vh-20210809t173953-20210809t174018-039156-049f13-002.tiff", "VH", "sentinel-1c", None),
        ("Spain_7370579_S2Hand_west.tif", None, "sentinel-2", None),
        ("scene_red.tif", "red", None, None),
        ("joplin_after.tif", None, None, None),
    ],
)
def test_band_platform_and_level(name: str, band: str | None, platform: str | None, level: str | None) -> None:
    facts = read_name(name)
    assert (facts.band, facts.platform, facts.level) == (band, platform, level)


def test_bands_of_one_image_share_a_key() -> None:
    keys = {
        read_name(f"a/T31TFJ_20240504T105031_{band}.jp2").key for band in ("B04_10m", "B11_20m", "SCL_20m", "TCI_10m")
    }
    assert len(keys) == 1
    stem = "s1a-iw-grd-{}-20210809t173953-20210809t174018-039156-049f13-00{}.tiff"
    assert read_name(stem.format("vv", 1)).key == read_name(stem.format("vh", 2)).key


def test_previews_and_masks_by_name() -> None:
    for name in ("x_thumbnail.jpg", "preview/quick-look.png", "a_browse.jpg", "T31_PVI.jp2"):
        assert no_image(name) == "a preview", name
    for name in ("Labels/x_LabelHand_west.tif", "building_mask/0.tif", "x_udm2.tif", "QI_DATA/MSK.jp2", "a_target.png"):
        assert no_image(name) == "a mask or label", name
    for name in ("after.tif", "masked/a.tif", "labelled_area.tif", "IMG_DATA/T31_B04.jp2", "post_disaster.png"):
        assert no_image(name) is None, name


def test_the_tags_of_tiffs() -> None:
    found = date_in_tag("2018:07:16 06:06:23")
    assert str(found).startswith("2018-07-16T06:06:23Z")
    assert date_in_tag("0000:00:00 00:00:00") is None
    assert date_in_tag("") is None
