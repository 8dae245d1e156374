"""Adds what lies outside Training/mskd to the installed package: the recipes and the bundled models."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages("Training", include=["mskd*"]), "mskd.recipes", "mskd.models"],
    package_dir={
        "": "Training",
        "mskd.recipes": "Training/recipes",
        "mskd.models": "MSKDSegmentation/Resources/Models",
    },
    package_data={"mskd.recipes": ["*.toml"], "mskd.models": ["*/*"]},
)
