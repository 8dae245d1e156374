"""Data set layouts, one file each."""
