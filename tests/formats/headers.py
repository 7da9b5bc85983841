"""Headers of small volumes of int16, 3 × 4 × 5 voxels, as the viewers' programs write them."""

from __future__ import annotations

NRRD = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "5 4 3",
    "space directions": "(1,0,0) (0,1,0) (0,0,2)",
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(1,2,3)",
}
META = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "1 2 3",
    "ElementSpacing": "1 1 2",
    "DimSize": "5 4 3",
    "ElementType": "MET_SHORT",
}
"""``ElementDataFile`` follows: it ends the header."""
