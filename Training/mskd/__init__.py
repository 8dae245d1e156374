"""MSKD: distil heavy medical segmentation networks into light students, and run them anywhere."""

__version__ = "0.1.0"
