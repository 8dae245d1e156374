"""Students and teachers: one family a file, ``dim`` in {2, 3}."""

from mskd.networks.base import NETWORKS, SegmentationNetwork, build_network, count_parameters

__all__ = ["NETWORKS", "SegmentationNetwork", "build_network", "count_parameters"]
