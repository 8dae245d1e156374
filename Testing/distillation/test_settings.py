"""The section [distillation] of a recipe."""

from __future__ import annotations

import pytest

from mskd.distillation import METHODS, DistillationSettings
from mskd.errors import SettingsError
from mskd.spec import Strict, validate


class Recipe(Strict):
    distillation: DistillationSettings = DistillationSettings()


def load(**section) -> DistillationSettings:
    return validate(Recipe, {"distillation": section}, source="run.toml", error=SettingsError).distillation


def test_the_default_is_mskd():
    assert set(load().terms) == {"kd", "ffd", "rgd"}


def test_the_resolved_settings_show_every_default_and_load_again():
    settings = load(terms={"rgd": {"hops": 1, "ln": 0}})
    assert settings.terms["rgd"]["background"] == "ring"
    assert settings.terms["rgd"]["nodes"] == ["class", "split"]
    assert settings.term("rgd").hops == 1
    assert load(**settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize("method", METHODS.names())
def test_every_method_has_defaults_and_a_weight(method):
    assert load(terms={method: {"weight": 3}}).term(method).weight == 3


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"rampe": 0.1}, "did you mean 'ramp'"),
        ({"terms": {"ffdd": {}}}, "no distillation method 'ffdd'; did you mean 'ffd'"),
        ({"terms": {"kd": {"temprature": 4}}}, "'temprature'; did you mean 'temperature'"),
        ({"terms": {"ffd": {"theta": 0.4}}}, "'theta' is 0.4: .*greater than or equal to 0.5"),
        ({"terms": {"rgd": {"nodes": ["organ"]}}}, "'nodes.0' is 'organ'"),
        ({"terms": {"kd": {"weight": -1}}}, "'weight' is -1"),
        ({"terms": {}}, "'distillation.terms'"),
        ({"ramp": 2}, "'distillation.ramp' is 2"),
        ({"regions": "masks"}, "'distillation.regions' is 'masks'"),
        ({"n_min": 0}, "'distillation.n_min' is 0"),
        ({"student_levels": ["a"], "teacher_levels": ["a", "b"]}, "are pairs"),
        (
            {"teacher_logits": "cached"},
            r"terms \['ffd', 'rgd'\] read the teacher's features.* never cached; leave these",
        ),
        ({"teacher_logits": "chached"}, "'distillation.teacher_logits' is 'chached'"),
    ],
)
def test_a_wrong_section_gets_a_sentence(section, message):
    with pytest.raises(SettingsError, match=message) as caught:
        load(**section)
    assert str(caught.value).startswith("run.toml: ")
