"""The model package: a folder (or zip) of data, never code, that is checked before anything in it is believed."""

from mskd.package.bundled import bundled_models
from mskd.package.card import render_card
from mskd.package.package import Package, open_package
from mskd.package.probe import VerifyReport, verify_package
from mskd.package.save import amend_package, save_package, zip_package

__all__ = [
    "Package",
    "VerifyReport",
    "amend_package",
    "bundled_models",
    "open_package",
    "render_card",
    "save_package",
    "verify_package",
    "zip_package",
]
