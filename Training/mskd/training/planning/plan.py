"""From a draft and a data set to a complete recipe, with a reason for every value that the draft left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mskd.data import Dataset
from mskd.data.arrays import ArrayStore
from mskd.events import CancelCheck, Listener, never, silent
from mskd.files import write_text
from mskd.spec import Strict
from mskd.training.draft import Draft
from mskd.training.planning.measure import DataFingerprint, measure_cases
from mskd.training.planning.planner import Planner
from mskd.training.planning.write import recipe_toml
from mskd.training.rundata import choose_split
from mskd.training.settings import Recipe


class Plan(Strict):
    """What was decided and why; ``plan.json`` of a run.

    Args:
        values: By dotted key of the recipe, what the recipe left out.
        reasons: By the same keys.
    """

    fingerprint: DataFingerprint
    values: dict[str, Any]
    reasons: dict[str, str]

    def save(self, path: Path) -> None:
        """Write the plan as JSON, whole or not at all."""
        write_text(path, json.dumps(self.model_dump(mode="json"), indent=1) + "\n")

    def as_toml(self, recipe: Recipe) -> str:
        """The recipe that this plan completed, with the reasons."""
        cases = len(self.fingerprint.cases)
        heading = (
            f"Planned by mskd from the {cases} training cases of {self.fingerprint.dataset}. "
            "What has no reason is a default, or was given."
        )
        return recipe_toml(recipe, self.reasons, heading)


def complete(
    draft: Recipe | Draft,
    dataset: Dataset,
    *,
    split_file: Path | None = None,
    cache: Path | None = None,
    jobs: int = 0,
    on_event: Listener = silent,
    cancelled: CancelCheck = never,
) -> tuple[Recipe, Plan | None]:
    """Plan what a draft leaves out; a complete recipe comes back as it is, and no case is read for it.

    Test and validation cases are never read: the training cases of the split decide.

    Args:
        split_file: A split to take instead of the one that the recipe draws.
        cache: Keeps what was measured of each case.

    Raises:
        SettingsError: values of the draft that no plan can complete. InputError: a faulty case.
    """
    if isinstance(draft, Recipe):
        return draft, None
    planner = Planner(draft, dataset)
    planner.names()
    split = choose_split(dataset, planner.split(), split_file)
    facts = measure_cases(
        dataset,
        dataset.select(split.train),
        None if cache is None else ArrayStore(cache),
        jobs=jobs,
        bad_cases=draft.get("data.bad_cases") or "stop",
        on_event=on_event,
        cancelled=cancelled,
    )
    planner.decide(facts, split)
    return draft.complete(planner.values), Plan(fingerprint=facts, values=planner.values, reasons=planner.reasons)
