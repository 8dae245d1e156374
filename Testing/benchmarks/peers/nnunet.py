"""nnU-Net as a contender: its own planner, preprocessing, predictor and export; nothing of it is written anew here.

    python -m peers.nnunet plan FOLDER --package PACKAGE --shape 200 200 200     a model folder, random weights
    python -m peers.nnunet run IMAGE --model FOLDER --output FILE --result JSON [--windows N] [--student PACKAGE]

``plan`` lets nnU-Net's planner choose network and patch for images of that median shape at the package's spacing,
channel and number of labels. ``run`` goes from a file to a labels file in one process
(``predict_from_files_sequential``: with one image nnU-Net's worker processes only add their start), without
mirroring. ``--student`` puts the network of a package in place of nnU-Net's, with the package's patch. ``--windows
N`` computes N windows and reuses the last one's logits for the rest; the others' network seconds are then
extrapolated from the median, and all else is measured in full."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peers.clock import Clock, write_result

CHECKPOINT = "checkpoint_final.pth"
CONFIGURATION, TRAINER = "3d_fullres", "nnUNetTrainer"
DATASET, ENDING = "Dataset001_Benchmark", ".nii.gz"
MANY_CASES = 1000
CHANNELS = {"clip_zscore": "CT", "zscore": "MRI", "none": "noNorm"}
"""Our normalisation -> the channel name that makes nnU-Net choose the same."""


def plan(package_path: Path, shape: list[int], folder: Path, seed: int) -> None:
    """Write a model folder as nnU-Net's training leaves it: dataset.json, plans.json, a checkpoint."""
    from mskd.package import open_package

    manifest = open_package(package_path).manifest
    with tempfile.TemporaryDirectory() as temporary:
        raw, prepared = Path(temporary) / "raw" / DATASET, Path(temporary) / "preprocessed" / DATASET
        folders = {"raw": raw.parent, "preprocessed": prepared.parent, "results": Path(temporary)}
        os.environ |= {f"nnUNet_{name}": str(path) for name, path in folders.items()}
        write_raw(raw, manifest)
        prepared.mkdir(parents=True)
        (prepared / "dataset_fingerprint.json").write_text(json.dumps(fingerprint(manifest, shape)), encoding="utf-8")

        from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

        ExperimentPlanner(1).plan_experiment()
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(raw / "dataset.json", folder / "dataset.json")
        shutil.copy(prepared / "nnUNetPlans.json", folder / "plans.json")
    save_checkpoint(folder, seed)


def write_raw(folder: Path, manifest: Any) -> None:
    """The least that nnU-Net's planner wants to see of a data set: dataset.json and one case."""
    import SimpleITK as sitk

    for name in ("imagesTr/case_0000", "labelsTr/case"):
        path = folder / f"{name}{ENDING}"
        path.parent.mkdir(parents=True)
        sitk.WriteImage(sitk.Image(8, 8, 8, sitk.sitkUInt8), str(path))
    description = {
        "channel_names": {"0": CHANNELS[manifest.normalization.name]},
        "labels": {"background": 0, **{label.name: label.value for label in manifest.labels}},
        "numTraining": MANY_CASES,
        "file_ending": ENDING,
    }
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


def fingerprint(manifest: Any, shape: list[int]) -> dict[str, Any]:
    """What nnU-Net would have measured on a data set of such images."""
    rule = manifest.normalization
    middle = {"mean": rule.mean or 0.0, "median": rule.mean or 0.0, "std": rule.std or 1.0}
    low, high = rule.lower or 0.0, rule.upper or 0.0
    limits = {"min": low, "percentile_00_5": low, "percentile_99_5": high, "max": high}
    return {
        "spacings": [list(manifest.spacing)],
        "shapes_after_crop": [shape],
        "foreground_intensity_properties_per_channel": {"0": {**middle, **limits}},
        "median_relative_size_after_cropping": 1.0,
    }


def save_checkpoint(folder: Path, seed: int) -> None:
    """Random weights in the form in which nnU-Net's trainer saves them."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans, description = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("plans.json", "dataset.json")
    )
    manager = PlansManager(plans)
    torch.manual_seed(seed)
    heads = manager.get_label_manager(description).num_segmentation_heads
    network = nnUNetTrainer.build_network_architecture(
        manager, manager.get_configuration(CONFIGURATION), 1, heads, enable_deep_supervision=False
    )
    (folder / "fold_0").mkdir(exist_ok=True)
    checkpoint = {
        "network_weights": network.state_dict(),
        "init_args": {"configuration": CONFIGURATION},
        "trainer_name": TRAINER,
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    torch.save(checkpoint, folder / "fold_0" / CHECKPOINT)


def make_predictor(folder: Path) -> Any:
    """nnU-Net's predictor as its command line makes it with ``--disable_tta -device cpu``."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.initialize_from_trained_model_folder(str(folder), (0,), CHECKPOINT)
    return predictor


def put_student_in(predictor: Any, package_path: Path) -> None:
    """The network and patch of a package instead of nnU-Net's; preprocessing and export stay nnU-Net's."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from mskd.package import open_package

    package = open_package(package_path)
    plans = predictor.plans_manager.plans
    plans["configurations"][CONFIGURATION]["patch_size"] = list(package.manifest.patch)
    manager = PlansManager(plans)
    network = package.load_network().eval()
    predictor.manual_initialization(
        network,
        manager,
        manager.get_configuration(CONFIGURATION),
        [network.state_dict()],
        predictor.dataset_json,
        TRAINER,
        None,
    )


@dataclass
class Windows:
    """Stands between the predictor and its network: times windows, computes only the first ``limit`` (0: all)."""

    predictor: Any
    limit: int
    total: int = 0
    seconds: list[float] = field(default_factory=list)
    copying: float = 0.0
    _last: Tensor | None = None

    def __post_init__(self) -> None:
        self._network = self.predictor._internal_maybe_mirror_and_predict
        self.predictor._internal_maybe_mirror_and_predict = self

    def __call__(self, window: Tensor) -> Tensor:
        start = time.perf_counter()
        self.total += 1
        if self._last is not None and len(self.seconds) == self.limit:
            copy = self._last.clone()  # the predictor weighs it in place
            self.copying += time.perf_counter() - start
            return copy
        logits: Tensor = self._network(window)
        self.seconds.append(time.perf_counter() - start)
        if len(self.seconds) == self.limit:
            self._last = logits.clone()
            self.copying += time.perf_counter() - start - self.seconds[-1]
        return logits

    def extrapolated(self) -> dict[str, float] | None:
        """What was not computed: counts and seconds, from the median of the windows after the first, which warms up."""
        missing = self.total - len(self.seconds)
        if missing == 0:
            return None
        each = statistics.median(self.seconds[1:] or self.seconds)
        return {
            "windows_computed": len(self.seconds),
            "windows_total": self.total,
            "seconds_per_window": each,
            "seconds_added": missing * each - self.copying,
        }


def run(options: argparse.Namespace) -> None:
    """From a file to a labels file, timed by phase."""
    import nnunetv2.inference.predict_from_raw_data as prediction
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    predictor = make_predictor(options.model)
    if options.student:
        put_student_in(predictor, options.student)
    clock, windows = Clock(), Windows(predictor, options.windows)
    clock.watch(SimpleITKIO, "read_images", "read")
    clock.watch(SimpleITKIO, "write_seg", "write")
    clock.watch(DefaultPreprocessor, "run_case", "prepare")
    clock.watch(prediction, "export_prediction_from_logits", "restore")
    clock.watch(predictor, "predict_logits_from_preprocessed_data", "network")
    stem = str(options.output).removesuffix(ENDING)
    with clock.phase("other"):
        predictor.predict_from_files_sequential([[str(options.image)]], [stem])
    added = windows.extrapolated()
    if added:
        clock.seconds["network"] += added["seconds_added"]
    write_result(
        options.result,
        clock,
        extrapolated=added,
        network={
            "parameters": sum(weight.numel() for weight in set(predictor.network.parameters())),
            "patch": list(predictor.configuration_manager.patch_size),
            "windows": windows.total,
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    planning = parts.add_parser("plan")
    planning.add_argument("folder", type=Path)
    planning.add_argument("--package", type=Path, required=True)
    planning.add_argument("--shape", type=int, nargs=3, required=True)
    planning.add_argument("--seed", type=int, default=0)
    running = parts.add_parser("run")
    running.add_argument("image", type=Path)
    running.add_argument("--model", type=Path, required=True)
    running.add_argument("--output", type=Path, required=True)
    running.add_argument("--result", type=Path, required=True)
    running.add_argument("--windows", type=int, default=0)
    running.add_argument("--student", type=Path)
    options = parser.parse_args()
    if options.part == "plan":
        plan(options.package, options.shape, options.folder, options.seed)
    else:
        run(options)


if __name__ == "__main__":
    main()
