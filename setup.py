"""Build entry point; the metadata lives in pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=find_packages(include=["lganet_fast", "lganet_fast.*"]))
