"""Progress of a run as a percentage and a line of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slicer.i18n import tr as _

# Phase -> where it begins and ends, in percent of a typical run with a warm worker.
SPANS = {"read": (0, 2), "load": (2, 10), "prepare": (10, 20), "windows": (20, 90), "restore": (90, 100)}


def percent(event: Mapping[str, Any]) -> int:
    """0 to 100, from an event's phase and count; 0 for a phase that is not known."""
    begin, end = SPANS.get(str(event.get("phase")), (0, 0))
    total = event.get("total") or 0
    share = min(1.0, (event.get("done") or 0) / total) if total > 0 else 0.0
    return round(begin + share * (end - begin))


def describe(event: Mapping[str, Any]) -> str:
    """What is going on, for the status line."""
    if event.get("text"):
        return str(event["text"])
    names = {
        "read": _("Reading the volume…"),
        "load": _("Loading the model…"),
        "prepare": _("Preparing the volume…"),
        "windows": _("Segmenting…"),
        "restore": _("Returning to the volume's grid…"),
    }
    text = names.get(str(event.get("phase")), _("Working…"))
    if event.get("phase") == "windows" and (event.get("total") or 0) > 1:
        text = _("Segmenting: part {done} of {total}…").format(done=event.get("done"), total=event["total"])
    return text


def summary(report: Mapping[str, Any], labels: list[dict[str, Any]], seconds: float) -> str:
    """The status of a finished run: time and device, and what the report has of volumes and warnings."""
    device = f" ({report['device']})" if report.get("device") else ""
    text = _("Done in {seconds:.1f} s{device}.").format(seconds=seconds, device=device)
    volumes = report.get("volumes_ml")
    if isinstance(volumes, Mapping):
        parts = [f"{label['name']} {volumes[label['name']]:.2f} mL" for label in labels if label["name"] in volumes]
        text += "\n" + "\n".join(parts)
    warnings = report.get("warnings")
    if isinstance(warnings, list) and warnings:
        text += "\n\n" + _("This image does not look like those the model was trained on:")
        text += "".join(f"\n- {sentence}" for sentence in warnings)
    return text
