# ruff: noqa: N999 (Slicer's convention: the module's name and Lib)
"""The parts of the MSKD Segmentation module; they import only the standard library, Slicer, vtk, numpy, qt and ctk."""
