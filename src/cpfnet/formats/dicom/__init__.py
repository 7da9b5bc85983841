"""DICOM: series, segmentations and structure sets, in folders, ZIP archives and files."""
