"""What a user is told: one line, whatever a file holds that is quoted in it."""

from __future__ import annotations

from multiprocessing import Pipe

import pytest

from mskd.errors import Cancelled, InputError, MSKDError, OutOfMemory, PackageError, SettingsError
from mskd.spec import NetworkSpec, validate

KINDS = (SettingsError, InputError, PackageError, OutOfMemory, Cancelled)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_is_one_line_of_visible_letters(kind: type[MSKDError]) -> None:
    fault = kind("Unknown key 'a\nb\x1b[2J\ud800c\u2028d': étage\u3000肝")
    assert str(fault) == "Unknown key 'a\\nb\\x1b[2J\\ud800c\\u2028d': étage\u3000肝"
    here, there = Pipe()  # as it comes from another process
    there.send(fault)
    again = here.recv()
    assert (type(again), str(again)) == (kind, str(fault))


def test_out_of_memory_can_be_made_after_its_base_was_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python then looks for its constructor anew, and finds MemoryError's."""
    monkeypatch.setattr(MSKDError, "__new__", lambda kind, *arguments: Exception.__new__(kind, *arguments))
    monkeypatch.undo()
    assert str(OutOfMemory("Memory ran out.")) == "Memory ran out."


def test_a_key_of_a_file_cannot_break_it() -> None:
    with pytest.raises(PackageError, match=r"Unknown key 'x\\ny'") as caught:
        validate(
            NetworkSpec, {"name": "light_unet", "arguments": {}, "x\ny": 1}, source="model.json", error=PackageError
        )
    assert "\n" not in str(caught.value)
