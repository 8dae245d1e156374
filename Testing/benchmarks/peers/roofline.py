"""The least time the network of a plan could take: its multiplications at the speed of this machine's matrix product.

    python -m peers.roofline PACKAGE RESULT --window 183 267 267 --windows 1 [--side 2048]

What a depthwise network moves through memory is not in it, so no engine reaches it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from mskd.networks import build_network
from mskd.package import open_package

REPEATS = 10


def network_flops(package: Path, window: list[int]) -> int:
    """Floating-point operations of one forward pass over a window (z, y, x); a multiply-add is two."""
    manifest = open_package(package).manifest
    with torch.device("meta"):
        network = build_network(manifest.network).eval()
        channels = len(manifest.channels)
        shape = (window[0], channels, *window[1:]) if manifest.dim == 2 else (1, channels, *window)
        image = torch.empty(shape)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        network(image)
    return counted.get_total_flops()


def matrix_rate(side: int) -> float:
    """Floating-point operations a second of a float32 matrix product, median of several."""
    left, right = torch.randn(side, side), torch.randn(side, side)
    taken = []
    for turn in range(REPEATS + 1):
        start = time.perf_counter()
        torch.mm(left, right)
        if turn:  # the first warms up
            taken.append(time.perf_counter() - start)
    return 2 * side**3 / statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--window", type=int, nargs=3, required=True)
    parser.add_argument("--windows", type=int, required=True)
    parser.add_argument("--side", type=int, default=2048)
    options = parser.parse_args()
    flops = options.windows * network_flops(options.package, options.window)
    rate = matrix_rate(options.side)
    found = {"gflops": flops / 1e9, "gflops_per_second": rate / 1e9, "seconds": flops / rate}
    options.result.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
