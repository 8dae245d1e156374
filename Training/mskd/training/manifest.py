"""What a finished run says of its network in the model package."""

from __future__ import annotations

from importlib.metadata import version

from pydantic_core import to_jsonable_python

from mskd.errors import SettingsError
from mskd.inference import environment
from mskd.inference.familiar import summarise
from mskd.spec import Manifest, NetworkSpec, Provenance, TrainingData, validate
from mskd.teachers import Teacher
from mskd.training.rundata import RunData
from mskd.training.settings import Recipe
from mskd.training.validation import Validation


def make_manifest(
    recipe: Recipe, role: str, network: NetworkSpec, data: RunData, teacher: Teacher | None, result: Validation
) -> Manifest:
    """The manifest of the network that this recipe gave; its figures are those of the validation cases.

    Raises:
        SettingsError: recipe and data together make no valid manifest.
    """
    about = recipe.package
    provenance = Provenance(
        method="supervised" if teacher is None else "+".join(sorted(recipe.distillation.terms)),
        data=f"{data.dataset.name}: {len(data.train)} training and {len(data.validation)} validation cases",
        data_fingerprint=data.fingerprint,
        teacher=None if teacher is None else teacher.name,
        teacher_fingerprint=None if teacher is None else teacher.fingerprint,
        recipe=recipe.model_dump(mode="json"),
        seed=recipe.seed,
        versions=versions(),
    )
    fields = {
        "name": f"{recipe.name}-{role}",
        "title": about.title,
        "description": about.description,
        "network": network,
        "channels": data.dataset.channels,
        "spacing": data.spec.spacing,
        "orientation": data.spec.orientation,
        "normalization": data.spec.normalization,
        "patch": recipe.input.patch,
        "labels": data.labels,
        "largest_component": about.largest_component,
        "fill_holes": about.fill_holes,
        "training_data": _training_data(data),
        "provenance": provenance,
        "metrics": result.metrics(),
        "licence": about.licence or data.dataset.licence or "unknown: ask the owner of the data",
        "citation": about.citation or data.dataset.citation,
        "intended_use": about.intended_use,
    }
    source = f"What the package of '{recipe.name}' would say of {data.dataset.path}"
    return validate(Manifest, to_jsonable_python(fields), source=source, error=SettingsError)


def _training_data(data: RunData) -> TrainingData | None:
    """What the training images look like; None where a cache of prepared cases does not say it of each."""
    facts = [case.facts for case in data.train]
    known = [fact for fact in facts if fact is not None]
    return summarise(known) if len(known) == len(facts) else None


def versions() -> dict[str, str]:
    """What a number was measured with."""
    return {**environment.versions(), "monai": version("monai")}
