"""What the own backward pass of the depthwise convolution saves a training step on a processor.

    python Testing/benchmarks/depthwise.py --output Testing/benchmarks/results/speed/depthwise.json

One thread, channels-last, in turns: forward and backward of a convolution, and the same of a separable light U-Net.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from mskd.inference.environment import keep_freed_memory
from mskd.networks import build_network, depthwise
from mskd.networks.depthwise import DepthwiseConv3d
from mskd.spec import NetworkSpec

LAYERS = ((16, 48), (32, 32), (64, 16))
"""(channels, side) of one convolution, batch 2."""
PATCH, CHANNELS = 64, [16, 32, 64, 96]


def layer(channels: int, side: int) -> Callable[[], None]:
    convolution = DepthwiseConv3d(channels, channels, 3, padding=1, groups=channels, bias=False)
    image = torch.randn(2, channels, side, side, side).contiguous(memory_format=torch.channels_last_3d)
    image.requires_grad_()
    return lambda: convolution(image).sum().backward()


def network() -> Callable[[], None]:
    arguments = {"dim": 3, "in_channels": 1, "classes": 3, "channels": CHANNELS, "separable": True}
    built = build_network(NetworkSpec(name="light_unet", arguments=arguments))
    built = built.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    image = torch.randn(2, 1, PATCH, PATCH, PATCH)
    return lambda: built(image).square().mean().backward()


def compare(step: Callable[[], None], rounds: int) -> dict[str, Any]:
    """Median processor milliseconds with either backward pass, in turns, and the median of the ratios."""
    sides = {"pytorch": depthwise._convolve, "mskd": depthwise._Depthwise.apply}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, convolve in sides.items():
            start = time.process_time()
            with patch.object(depthwise._Depthwise, "apply", convolve):
                step()
            if turn:  # the first turn warms up
                spent[name].append(1000 * (time.process_time() - start))
    ratios = [theirs / ours for theirs, ours in zip(spent["pytorch"], spent["mskd"], strict=True)]
    return {
        "milliseconds": {name: round(statistics.median(times), 1) for name, times in spent.items()},
        "times_faster": round(statistics.median(ratios), 2),
        "times_faster_range": [round(min(ratios), 2), round(max(ratios), 2)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    torch.manual_seed(0)
    results = {
        f"forward and backward, 2 x {channels} x {side}^3": compare(layer(channels, side), options.rounds)
        for channels, side in LAYERS
    }
    results[f"separable light_unet {CHANNELS}, 2 x 1 x {PATCH}^3"] = compare(network(), options.rounds)
    print(json.dumps(results, indent=1))
    about = {
        "command": "python Testing/benchmarks/depthwise.py",
        "what": "processor time of a training step in one thread, medians of interleaved turns",
        "rounds": options.rounds,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, no GPU",
        "versions": {name: version(name) for name in ("torch", "numpy")},
        "results": results,
    }
    options.output.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
