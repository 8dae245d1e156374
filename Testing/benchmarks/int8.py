"""Whether 8-bit integers would pay: a student in OpenVINO's float32 and bfloat16, quantised by NNCF, and in PyTorch.

    python Testing/benchmarks/int8.py OpenKBP_HeadNeckCT --model runs/student/model --split runs/student/split.json \\
        --window 128 128 160 --output Testing/benchmarks/results/speed/int8.openkbp.json

Needs ``nncf``. The quantised model is what ``mskd export --int8`` writes from images of training cases; its student's
stem must not stride. Dice is that of the validation cases through the whole engine, so that only the network differs;
milliseconds are of one window of noise, medians of turns in which every kind runs once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch
from peers.machine import machine, usable_cores, versions
from torch import Tensor

from mskd.data import Split, open_dataset
from mskd.evaluation.run import evaluate
from mskd.evaluation.table import MEAN
from mskd.export.int8 import QuantizedOpenVINO, calibration_windows
from mskd.files import write_text
from mskd.inference import Engine, tune_process
from mskd.inference.backends import BACKENDS, make_backend
from mskd.inference.backends.openvino import OpenVINO
from mskd.inference.runtimes import import_openvino
from mskd.inference.traced import Logits
from mskd.networks import SegmentationNetwork
from mskd.package import Package, open_package

CPU = torch.device("cpu")
KINDS = {
    "torch_eager float32": ("torch_eager", "float32"),
    "openvino float32": ("openvino", "float32"),
    "openvino bfloat16": ("openvino", "bfloat16"),
    "openvino int8": ("openvino_int8", "float32"),
}


@BACKENDS.register("openvino_int8")
class Quantised(OpenVINO):
    """What ``mskd export --int8`` writes, as a backend; ``package`` and ``windows`` are set before it is made."""

    measured: ClassVar[bool] = False
    package: ClassVar[Package]
    windows: ClassVar[list[Tensor]]

    def __init__(self, network: SegmentationNetwork, device: torch.device, precision: str = "float32") -> None:
        openvino = import_openvino()
        model = QuantizedOpenVINO(self.windows).convert(self.package)
        self._share, self._logits = openvino.Tensor, Logits(network.cpu().eval())
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        settings["INFERENCE_PRECISION_HINT"] = "f32"
        self._compiled = openvino.Core().compile_model(model, "CPU", settings)


def speed(model: Path, window: list[int], rounds: int) -> dict[str, Any]:
    """Milliseconds of one window, and how the median of each kind compares with OpenVINO's float32."""
    package = open_package(model)
    image = torch.randn(1, len(package.manifest.channels), *window, generator=torch.Generator().manual_seed(0))
    made = {}
    for kind, (name, precision) in KINDS.items():
        network = package.load_network()
        network.enlarges = False
        made[kind] = make_backend(name, network, CPU, precision)
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for turn in range(rounds + 1):
        for kind, run in made.items():
            start = time.perf_counter()
            run(image)
            if turn:  # the first turn sets up
                taken[kind].append(1000 * (time.perf_counter() - start))
    medians = {kind: statistics.median(times) for kind, times in taken.items()}
    return {
        "milliseconds": {kind: round(median, 1) for kind, median in medians.items()},
        "times_openvino_float32": {
            kind: round(medians["openvino float32"] / median, 2) for kind, median in medians.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--split", type=Path, required=True, help="split.json of the model's run")
    parser.add_argument("--window", type=int, nargs=3, required=True, help="z y x of the timed window")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    tune_process()
    dataset, split, package = open_dataset(options.dataset), Split.load(options.split), open_package(options.model)
    Quantised.package = package
    Quantised.windows = calibration_windows(package, {case.id: case.images for case in dataset.select(split.train)})
    cases = dataset.select(split.validation)
    dice = {}
    for kind, (name, precision) in KINDS.items():
        engine = Engine(package, "cpu", backend=name, precision=precision)
        table = evaluate(engine, dataset, cases, part="validation")
        dice[kind] = {label: round(table.summary(label, "dice").mean, 4) for label in (*table.labels, MEAN)}
    result = {
        "model": package.manifest.name,
        "dataset": dataset.name,
        "validation_cases": len(cases),
        "calibration_windows": len(Quantised.windows),
        "window": options.window,
        "rounds": options.rounds,
        "dice": dice,
        **speed(options.model, options.window, options.rounds),
        "machine": machine(usable_cores()),
        "versions": {**versions(), "nncf": version("nncf")},
    }
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    write_text(options.output, text)


if __name__ == "__main__":
    main()
