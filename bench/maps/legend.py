"""Names and colours of classes for mapping programs: GDAL's auxiliary files and QGIS's styles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple
from xml.etree import ElementTree as ET

from bench.inference.visualize import Colour
from bench.maps.scene import Place

_TABLE: Final = (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8))
"""Columns of a raster attribute table: name, type (0 integer, 2 text), and GDAL's number of its use."""


class Legend(NamedTuple):
    """Name and colour of each class, by its number."""

    names: Sequence[str]
    colours: Sequence[Colour]


def auxiliary_file(legend: Legend, place: Place | None = None) -> bytes:
    """Write what GDAL reads beside an image (.aux.xml): category names and attribute table of its first band.

    place: for formats that hold none themselves.
    """
    root = ET.Element("PAMDataset")
    if place is not None:
        if place.crs is not None:
            ET.SubElement(root, "SRS").text = place.crs.to_wkt()
        ET.SubElement(root, "GeoTransform").text = ", ".join(f"{value:.17g}" for value in place.transform.to_gdal())
    band = ET.SubElement(root, "PAMRasterBand", band="1")
    categories = ET.SubElement(band, "CategoryNames")
    for name in legend.names:
        ET.SubElement(categories, "Category").text = name
    table = ET.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, use) in enumerate(_TABLE):
        column = ET.SubElement(table, "FieldDefn", index=str(index))
        for tag, value in (("Name", name), ("Type", kind), ("Usage", use)):
            ET.SubElement(column, tag).text = str(value)
    for number, (name, colour) in enumerate(zip(*legend, strict=True)):
        line = ET.SubElement(table, "Row", index=str(number))
        for value in (number, name, *colour):
            ET.SubElement(line, "F").text = str(value)
    return _file(root)


def raster_style(legend: Legend) -> bytes:
    """Write a QGIS style (.qml) of a label map: a colour and a name for each number."""
    root = ET.Element("qgis", version="3.22", styleCategories="Symbology")
    renderer = ET.SubElement(
        ET.SubElement(root, "pipe"), "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1"
    )
    palette = ET.SubElement(renderer, "colorPalette")
    for number, (name, colour) in enumerate(zip(*legend, strict=True)):
        ET.SubElement(palette, "paletteEntry", value=str(number), color=_hex(colour), alpha="255", label=name)
    return _file(root)


def polygon_style(legend: Legend, column: str) -> bytes:
    """Write a QGIS style (.qml) of polygons whose attribute `column` is the name of a class."""
    root = ET.Element("qgis", version="3.22", styleCategories="Symbology")
    renderer = ET.SubElement(root, "renderer-v2", type="categorizedSymbol", attr=column)
    categories, symbols = ET.SubElement(renderer, "categories"), ET.SubElement(renderer, "symbols")
    for number, (name, colour) in enumerate(zip(*legend, strict=True)):
        ET.SubElement(categories, "category", value=name, label=name, symbol=str(number), render="true", type="string")
        symbol = ET.SubElement(symbols, "symbol", type="fill", name=str(number), alpha="1")
        layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "pass": "0", "locked": "0"})
        _options(layer, {"color": ",".join(map(str, (*colour, 255))), "style": "solid", "outline_style": "no"}.items())
    return _file(root)


def _options(parent: ET.Element, values: Iterable[tuple[str, Any]]) -> None:
    options = ET.SubElement(parent, "Option", type="Map")
    for name, value in values:
        ET.SubElement(options, "Option", name=name, type="QString", value=str(value))


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _file(root: ET.Element) -> bytes:
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8")) + b"\n"  # GDAL wants no declaration before it
