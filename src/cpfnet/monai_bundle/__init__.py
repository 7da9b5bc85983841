"""Models as bundles that MONAI's own tools verify, load and run."""
