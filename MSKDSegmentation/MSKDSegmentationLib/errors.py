"""The one error of this module that is written for its user."""

from __future__ import annotations


class SegmentationError(Exception):
    """One sentence or two for the user: what is wrong, with the value, and the remedy."""


class CancelledError(SegmentationError):
    """The user cancelled the run; nothing was written."""
