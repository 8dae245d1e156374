"""Fixtures of the tests of images; ``image_files`` can be imported by them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mskd.image import nifti as nifti_module

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=["zlib", "isal.isal_zlib"])
def gzipping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What packs and unpacks gzip, with the package that is quicker and without it."""
    monkeypatch.setattr(nifti_module, "gzipping", pytest.importorskip(request.param))
