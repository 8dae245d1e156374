"""How good a segmentation is: metrics, tables, overlays."""
