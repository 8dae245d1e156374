"""What holds for every registered layout: write a data set in layouts' own way here, and it is tested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written_layouts import WRITERS, Written

from mskd.cli.train import DatasetArgument
from mskd.data import LAYOUTS, Dataset, open_dataset, split_cases
from mskd.data.prepared import prepare_case, read_case
from mskd.errors import InputError
from mskd.spec import IGNORE, Normalization
from mskd.training.rundata import RunInput


@pytest.fixture(params=LAYOUTS.names())
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Written, Dataset]:
    made = WRITERS[request.param](tmp_path / "set")
    return request.param, made, open_dataset(made.path)


def test_a_folder_has_exactly_one_layout(written: tuple[str, Written, Dataset]) -> None:
    name, made, _ = written
    assert [other for other in LAYOUTS.names() if LAYOUTS[other].recognises(made.path)] == [name]


def test_cases_are_found_once_with_their_patients(written: tuple[str, Written, Dataset]) -> None:
    _, made, dataset = written
    assert tuple(case.id for case in dataset.labelled) == made.labelled
    assert tuple(case.id for case in dataset.unlabelled) == made.unlabelled
    assert all(case.patient for case in dataset.cases)
    owner = {case.id: case.patient for case in dataset.labelled}
    split = split_cases(dataset, 0, 0.0, 0.3)
    assert split.train
    assert split.test
    assert not {owner[name] for name in split.train} & {owner[name] for name in split.test}


def test_every_case_reads_as_the_data_set_describes_it(written: tuple[str, Written, Dataset]) -> None:
    _, made, dataset = written
    assert tuple(label.name for label in dataset.labels) == made.labels
    assert [label.value for label in dataset.labels] == list(range(1, len(made.labels) + 1))
    assert len({label.color for label in dataset.labels}) == min(7, len(made.labels))
    wanted = {0, *range(1, len(made.labels) + 1), *([IGNORE] if made.ignore else [])}
    for case in dataset.cases:
        image, labels = read_case(dataset, case)
        assert len(image.array) == len(dataset.channels) == made.channels
        assert (labels is None) == (case.id in made.unlabelled)
        if labels is not None:
            assert labels.geometry.matches(image.geometry)
            assert set(np.unique(labels.array)) == wanted


def test_every_case_can_be_prepared(written: tuple[str, Written, Dataset]) -> None:
    _, made, dataset = written
    spec = RunInput((3.0, 1.0, 1.0), "LPS", Normalization(name="zscore"))
    for case in dataset.cases:
        prepared = prepare_case(dataset, case, spec)
        assert prepared.image.shape == (made.channels, 5, 6, 7)
        assert prepared.labels is None or prepared.labels.shape == (5, 6, 7)
        assert IGNORE not in prepared.foreground


def test_people_are_told_of_every_layout(root: Path) -> None:
    manual, shown = (root / "docs" / "data.md").read_text(), DatasetArgument.__metadata__[0].help
    for name in LAYOUTS.names():
        assert f"`{name}`" in manual
        assert name in shown


def test_what_is_no_data_set_is_told_what_each_layout_needs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the known layouts") as caught:
        open_dataset(tmp_path)
    for name in LAYOUTS.names():
        assert f"{name} ({LAYOUTS[name].needs})" in str(caught.value)
