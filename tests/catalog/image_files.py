"""Image files of every layout that agencies and portals deliver, written with drawn pixels and real metadata's form."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

UTM31 = "EPSG:32631"
WEST_M, NORTH_M = 600_000.0, 4_900_020.0
S2_SIZES = {
    "B02": 10,
    "B03": 10,
    "B04": 10,
    "B08": 10,
    "B05": 20,
    "B8A": 20,
    "B11": 20,
    "B12": 20,
    "SCL": 20,
    "B01": 60,
}
SIDE_M = 2_400
PRODUCT = "S2A_MSIL2A_20240504T105031_N0510_R051_T31TFJ_20240504T141503"
LANDSAT = "LC08_L2SP_198030_20240504_20240511_02_T1"
GRD = "S1A_IW_GRDH_1SDV_20240504T055012_20240504T055037_053720_0686AB_1F3C"


def write_raster(
    path: Path,
    values: NDArray[Any],
    *,
    step: float = 10.0,
    crs: str | None = UTM31,
    corner: tuple[float, float] = (WEST_M, NORTH_M),
    **profile: Any,
) -> Path:
    """(bands, rows, columns) as a GeoTIFF, or JPEG 2000 or PNG by the file's name."""
    import rasterio

    path.parent.mkdir(parents=True, exist_ok=True)
    driver = {".jp2": "JP2OpenJPEG", ".png": "PNG", ".jpg": "JPEG"}.get(path.suffix.lower(), "GTiff")
    if driver == "JP2OpenJPEG":
        profile |= {"QUALITY": "100", "REVERSIBLE": "YES"}
    count, rows, columns = values.shape
    descriptions, tags = profile.pop("descriptions", ()), profile.pop("tags", {})
    shape = {"count": count, "height": rows, "width": columns, "dtype": values.dtype}
    transform = Affine(step, 0.0, corner[0], 0.0, -step, corner[1])
    with rasterio.open(path, "w", driver=driver, crs=crs, transform=transform, **shape, **profile) as dataset:
        dataset.write(values)
        for index, text in enumerate(descriptions, 1):
            dataset.set_band_description(index, text)
        if tags:
            dataset.update_tags(**tags)
    return path


def drawn(step: int, seed: int, dtype: str = "uint16") -> NDArray[Any]:
    """One band of SIDE_M metres: water in the west, land in the east, no zeros."""
    side = SIDE_M // step
    values = np.random.default_rng(seed).integers(1_200, 1_400, (1, side, side))
    values[..., side // 2 :] += 2_000 if seed % 2 else 600
    return values.astype(dtype)


def _s2_xml(level: str, offset: int | None, name: str) -> str:
    quantity = "BOA" if level == "2A" else "RADIO"
    quantum = "BOA_QUANTIFICATION_VALUE" if level == "2A" else "QUANTIFICATION_VALUE"
    offsets = (
        ""
        if offset is None
        else "".join(
            f'<{quantity}_ADD_OFFSET band_id="{index}">{offset}</{quantity}_ADD_OFFSET>' for index in range(13)
        )
    )
    baseline = "05.10" if offset is not None else "02.12"
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{level}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{level}.xsd">
<n1:General_Info><Product_Info><PRODUCT_START_TIME>2024-05-04T10:50:31.024Z</PRODUCT_START_TIME>
<PRODUCT_URI>{name}.SAFE</PRODUCT_URI><PROCESSING_LEVEL>Level-{level}</PROCESSING_LEVEL>
<PRODUCT_TYPE>S2MSI{level}</PRODUCT_TYPE><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
<GENERATION_TIME>2024-05-04T14:15:03.000000Z</GENERATION_TIME>
<Datatake datatakeIdentifier="GS2A_20240504T105031_046301_N{baseline}"><SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME>
<SENSING_ORBIT_NUMBER>51</SENSING_ORBIT_NUMBER><SENSING_ORBIT_DIRECTION>DESCENDING</SENSING_ORBIT_DIRECTION></Datatake>
</Product_Info><Product_Image_Characteristics><QUANTIFICATION_VALUES_LIST>
<{quantum} unit="none">10000</{quantum}></QUANTIFICATION_VALUES_LIST><OFFSET_LIST>{offsets}</OFFSET_LIST>
</Product_Image_Characteristics></n1:General_Info><n1:Geometric_Info><Product_Footprint><Global_Footprint>
<EXT_POS_LIST>44.3 4.2 44.3 4.35 44.2 4.35 44.2 4.2 44.3 4.2 </EXT_POS_LIST></Global_Footprint></Product_Footprint>
</n1:Geometric_Info><n1:Quality_Indicators_Info>
<Cloud_Coverage_Assessment>12.5</Cloud_Coverage_Assessment></n1:Quality_Indicators_Info></n1:Level-{level}_User_Product>
"""


def write_safe(
    folder: Path, *, level: str = "2A", offset: int | None = -1000, suffix: str = ".jp2", name: str = PRODUCT
) -> Path:
    """A Sentinel-2 product in SAFE's compact naming; returns its folder."""
    name = name.replace("MSIL2A", f"MSIL{level}")
    root = folder / f"{name}.SAFE"
    images = root / "GRANULE" / f"L{level}_T31TFJ_A046301_20240504T105258" / "IMG_DATA"
    for seed, (band, step) in enumerate(S2_SIZES.items()):
        if level == "1C" and band == "SCL":
            continue
        own = images / f"R{step}m" / f"T31TFJ_20240504T105031_{band}_{step}m{suffix}"
        values = drawn(step, seed)
        if band == "SCL":
            values = np.where(values > 1_500, 4, 6).astype(np.uint8)
        write_raster(own if level == "2A" else images / f"T31TFJ_20240504T105031_{band}{suffix}", values, step=step)
    if level == "2A":  # a coarser copy of a band, as the product has them
        write_raster(images / "R60m" / f"T31TFJ_20240504T105031_B04_60m{suffix}", drawn(60, 2), step=60)
    pictured = np.full((3, SIDE_M // 10, SIDE_M // 10), 90, np.uint8)
    where = images / ("R10m/T31TFJ_20240504T105031_TCI_10m" if level == "2A" else "T31TFJ_20240504T105031_TCI")
    write_raster(where.with_name(where.name + suffix), pictured)
    write_raster(images.parent / "QI_DATA" / f"MSK_CLDPRB_20m{suffix}", drawn(20, 5, "uint8"), step=20)
    (root / f"MTD_MSIL{level}.xml").write_text(_s2_xml(level, offset, name))
    return root


def pack_zip(root: Path, path: Path) -> Path:
    """`root`, a folder, as a zip that holds the folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root.parent))
    return path


def pack_tar(root: Path, path: Path) -> Path:
    """What is in `root` as a tar without a folder, as USGS packs it."""
    with tarfile.open(path, "w") as archive:
        for file in sorted(root.iterdir()):
            archive.add(file, file.name)
    return path


_MTL: Mapping[str, Mapping[str, str]] = {
    "PRODUCT_CONTENTS": {"LANDSAT_PRODUCT_ID": LANDSAT, "PROCESSING_LEVEL": "L2SP", "COLLECTION_CATEGORY": "T1"},
    "IMAGE_ATTRIBUTES": {
        "SPACECRAFT_ID": "LANDSAT_8", "SENSOR_ID": "OLI_TIRS", "WRS_PATH": "198", "WRS_ROW": "30",
        "DATE_ACQUIRED": "2024-05-04", "SCENE_CENTER_TIME": "10:35:47.8083990Z", "CLOUD_COVER": "3.50",
        "SUN_AZIMUTH": "140.1", "SUN_ELEVATION": "58.25",
    },
    "LEVEL2_PROCESSING_RECORD": {"DATE_PRODUCT_GENERATED": "2024-05-11T16:50:03Z"},
    "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": {
        **{f"REFLECTANCE_MULT_BAND_{band}": "2.75e-05" for band in range(1, 8)},
        **{f"REFLECTANCE_ADD_BAND_{band}": "-0.2" for band in range(1, 8)},
    },
    "LEVEL2_SURFACE_TEMPERATURE_PARAMETERS": {
        "TEMPERATURE_MULT_BAND_ST_B10": "0.00341802", "TEMPERATURE_ADD_BAND_ST_B10": "149.0",
    },
    "LEVEL1_RADIOMETRIC_RESCALING": {
        **{f"REFLECTANCE_MULT_BAND_{band}": "2.0000E-05" for band in range(1, 10)},
        **{f"REFLECTANCE_ADD_BAND_{band}": "-0.100000" for band in range(1, 10)},
        "RADIANCE_MULT_BAND_10": "3.3420E-04", "RADIANCE_ADD_BAND_10": "0.10000",
    },
    "LEVEL1_THERMAL_CONSTANTS": {"K1_CONSTANT_BAND_10": "774.8853", "K2_CONSTANT_BAND_10": "1321.0789"},
}  # fmt: skip


def mtl_text(form: str, groups: Mapping[str, Mapping[str, str]] = _MTL) -> str:
    """The MTL as JSON, ODL text or XML."""
    if form == "json":
        return json.dumps({"LANDSAT_METADATA_FILE": groups})
    if form == "xml":
        inner = "".join(
            f"<{group}>{''.join(f'<{key}>{value}</{key}>' for key, value in values.items())}</{group}>"
            for group, values in groups.items()
        )
        return f"<LANDSAT_METADATA_FILE>{inner}</LANDSAT_METADATA_FILE>"
    lines = ["GROUP = LANDSAT_METADATA_FILE"]
    for group, values in groups.items():
        lines += [f"  GROUP = {group}", *(f'    {key} = "{value}"' for key, value in values.items())]
        lines += [f"  END_GROUP = {group}"]
    return "\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END"])


def write_landsat(folder: Path, *, form: str | None = "json") -> Path:
    """A Landsat Collection 2 level 2 scene; `form` of its MTL, None for none."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, band in enumerate(("SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "ST_B10")):
        values = drawn(30, seed) + np.uint16(8_000 if band != "ST_B10" else 40_000)
        write_raster(folder / f"{LANDSAT}_{band}.TIF", values, step=30, nodata=0, corner=(WEST_M + 15, NORTH_M - 15))
    clear = np.full((1, 80, 80), 21_824, np.uint16)
    write_raster(folder / f"{LANDSAT}_QA_PIXEL.TIF", clear, step=30, nodata=1, corner=(WEST_M + 15, NORTH_M - 15))
    write_raster(folder / f"{LANDSAT}_ST_EMIS.TIF", drawn(30, 9), step=30, corner=(WEST_M + 15, NORTH_M - 15))
    if form:
        (folder / f"{LANDSAT}_MTL.{form}").write_text(mtl_text(form))
    return folder


def write_grd(folder: Path) -> Path:
    """A Sentinel-1 GRD in SAFE: measurement placed by ground control points, annotation that is only there."""
    import rasterio
    from rasterio.control import GroundControlPoint

    root = folder / f"{GRD}.SAFE"
    stem = "s1a-iw-grd-{}-20240504t055012-20240504t055037-053720-0686ab-{:03d}"
    points = [
        GroundControlPoint(row=row, col=column, x=4.2 + 0.0001 * column + 0.00002 * row, y=44.3 - 0.00009 * row)
        for row in (0, 100, 200)
        for column in (0, 100, 200)
    ]
    for number, channel in enumerate(("vv", "vh"), 1):
        path = root / "measurement" / f"{stem.format(channel, number)}.tiff"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = {"count": 1, "height": 200, "width": 200, "dtype": "uint16"}
        with rasterio.open(path, "w", driver="GTiff", gcps=points, crs="EPSG:4326", **shape) as dataset:
            dataset.write(drawn(12, number))
        for kind, below in (
            ("", "annotation"),
            ("calibration-", "annotation/calibration"),
            ("noise-", "annotation/calibration"),
        ):
            text = root / below / f"{kind}{stem.format(channel, number)}.xml"
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text(
                "<product><rangePixelSpacing>1.0e+01</rangePixelSpacing><azimuthPixelSpacing>1.2e+01</azimuthPixelSpacing></product>"
            )
    write_raster(root / "preview" / "quick-look.png", np.zeros((3, 20, 20), np.uint8))
    (root / "manifest.safe").write_text(_MANIFEST)
    return root


_MANIFEST = """<?xml version="1.0" encoding="UTF-8"?>
<xfdu:XFDU xmlns:gml="http://www.opengis.net/gml" xmlns:xfdu="urn:ccsds:schema:xfdu:1"
 xmlns:safe="http://www.esa.int/safe/sentinel-1.0" xmlns:s1="http://www.esa.int/safe/sentinel-1.0/sentinel-1"
 xmlns:s1sarl1="http://www.esa.int/safe/sentinel-1.0/sentinel-1/sar/level-1"><metadataSection>
<safe:platform><safe:familyName>SENTINEL-1</safe:familyName><safe:number>A</safe:number>
<s1sarl1:instrumentMode><s1sarl1:mode>IW</s1sarl1:mode></s1sarl1:instrumentMode></safe:platform>
<safe:orbitNumber type="start">53720</safe:orbitNumber>
<safe:relativeOrbitNumber type="start">37</safe:relativeOrbitNumber>
<s1:pass>DESCENDING</s1:pass><s1sarl1:missionDataTakeID>427691</s1sarl1:missionDataTakeID>
<s1sarl1:productType>GRD</s1sarl1:productType>
<safe:startTime>2024-05-04T05:50:12.153776</safe:startTime><safe:stopTime>2024-05-04T05:50:37.152800</safe:stopTime>
<gml:coordinates>44.30,4.20 44.30,4.22 44.282,4.224 44.282,4.204</gml:coordinates></metadataSection></xfdu:XFDU>
"""
