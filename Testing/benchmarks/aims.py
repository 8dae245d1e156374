"""What the engine is to reach, and whether a measurement says that it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Found = dict[str, Any]
IMAGE = "chest"
"""The image that the aims are about."""


@dataclass(frozen=True)
class Verdict:
    """One aim: what was asked, what was found (None: not measured), and whether it is met."""

    aim: str
    found: str | None
    met: bool | None


def verdicts(found: Found) -> list[Verdict]:
    """All aims, each against what ``engine.py`` wrote."""
    return [
        _faster(found, "nnunet", 100, "nnU-Net's default network and predictor, as shipped"),
        _faster(found, "nnunet tuned", 100, "nnU-Net's default network and predictor, tuned"),
        _memory(found, "nnunet", 4),
        _memory(found, "nnunet tuned", 4),
        *(
            _faster(found, f"{kind} {student_of(found)}{suffix}", least, f"{whose} with the same student, {state}")
            for kind, whose in (("nnunet-student", "nnU-Net's predictor"), ("monai", "MONAI's window"))
            for suffix, least, state in (("", 20, "as shipped"), (" tuned", 8, "tuned"))
        ),
        _network(found, 3),
        _restore(found, 20),
        _accuracy(found, 0.995),
    ]


def student_of(found: Found) -> str:
    """The student that the aims are about: the one that the peers ran, too."""
    return str(found["settings"]["students"][0])


def ours(found: Found, image: str = IMAGE) -> Found | None:
    """The row of the engine's own choice, or of the fastest backend where the choice was not measured."""
    student = student_of(found)
    rows = [row for row in found["summary"] if row["image"] == image and row["kind"] == "mskd" and "seconds" in row]
    rows = [row for row in rows if row["student"] == student]
    chosen = [row for row in rows if row["contender"] == f"mskd {student} auto"]
    return min(chosen or rows, key=lambda row: row["seconds"]["total"], default=None)


def row_of(found: Found, contender: str, image: str = IMAGE) -> Found | None:
    """A contender's row, or None where it was not measured or failed."""
    rows = [row for row in found["summary"] if (row["image"], row["contender"]) == (image, contender)]
    return next((row for row in rows if "seconds" in row), None)


def _against(found: Found, contender: str, value: Callable[[Found], float]) -> float | None:
    mine, theirs = ours(found), row_of(found, contender)
    return None if mine is None or theirs is None else value(theirs) / value(mine)


def _faster(found: Found, contender: str, least: int, whose: str) -> Verdict:
    ratio = _against(found, contender, lambda row: row["seconds"]["total"])
    return _judged(f"at least {least} times faster, end to end, than {whose}", ratio, "{:.1f} times", _at_least(least))


def _memory(found: Found, contender: str, least: int) -> Verdict:
    ratio = _against(found, contender, lambda row: row["peak_mb"])
    aim = f"at most 1/{least} of the memory of nnU-Net's default{', tuned' * contender.endswith('tuned')}"
    return _judged(aim, None if ratio is None else 1 / ratio, "{:.2f} of it", lambda share: share <= 1 / least)


def _network(found: Found, most: int) -> Verdict:
    mine = ours(found)
    entry = None if mine is None else found.get("roofline", {}).get(f"{IMAGE}: {mine['contender']}")
    ratio = None if entry is None else entry["times_roofline"]
    return _judged(f"the network within {most} times its roofline", ratio, "{:.1f} times", lambda value: value <= most)


def _restore(found: Found, most: int) -> Verdict:
    mine = ours(found)
    share = None if mine is None else 100 * mine["seconds"].get("restore", 0.0) / mine["seconds"]["total"]
    return _judged(f"back to the image's grid in under {most} % of the total", share, "{:.0f} %", lambda v: v < most)


def _accuracy(found: Found, least: float) -> Verdict:
    dice = found.get("guard", {}).get("mean_dice")
    return _judged(f"Dice against plain windows at least {least}, trained weights", dice, "{:.4f}", _at_least(least))


def _at_least(least: float) -> Callable[[float], bool]:
    return lambda value: value >= least


def _judged(aim: str, value: float | None, form: str, met: Callable[[float], bool]) -> Verdict:
    return Verdict(aim, None, None) if value is None else Verdict(aim, form.format(value), met(value))
