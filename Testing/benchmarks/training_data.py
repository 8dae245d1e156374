"""Measure the images a model was trained on and write what they look like into its package; the weights stay.

For packages that were made before this was recorded. The split is drawn again as the recipe in the package says.

    python Testing/benchmarks/training_data.py MODEL_FOLDER DATASET

Prints how many cases of each part of the split would be segmented with a warning.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mskd.data import Case, Dataset, open_dataset
from mskd.data.prepared import read_case
from mskd.errors import SettingsError
from mskd.inference import make_grid
from mskd.inference.familiar import image_facts, summarise, warnings
from mskd.package import amend_package, open_package
from mskd.spec import SCHEMA_VERSION, Manifest, validate
from mskd.training.rundata import choose_split
from mskd.training.settings import SplitSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("dataset", type=Path)
    options = parser.parse_args()
    package, dataset = open_package(options.model), open_dataset(options.dataset)
    recipe = package.manifest.provenance.recipe
    settings = validate(SplitSettings, recipe["split"], source=str(options.model), error=SettingsError)
    split = choose_split(dataset, settings)
    facts = [image_facts(read_case(dataset, case)[0], package.manifest) for case in dataset.select(split.train)]
    changes = {"training_data": summarise(facts), "schema_version": SCHEMA_VERSION}
    package = amend_package(package, package.manifest.model_copy(update=changes))
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    told = {name: warned(dataset, dataset.select(cases), package.manifest) for name, cases in parts.items()}
    print(json.dumps(told, indent=1))


def warned(dataset: Dataset, cases: tuple[Case, ...], manifest: Manifest) -> dict[str, int | list[str]]:
    """How many of the cases, and the sentences."""
    sentences: list[str] = []
    count = 0
    for case in cases:
        image = read_case(dataset, case)[0]
        found = warnings(manifest, image, make_grid(image.geometry, manifest), None)
        count += bool(found)
        sentences += [f"{case.id}: {sentence}" for sentence in found]
    return {"cases": len(cases), "warned": count, "sentences": sentences}


if __name__ == "__main__":
    main()
