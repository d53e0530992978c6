"""The configurations that come with the package, listed without loading their checks."""

from importlib import resources

PRESETS = resources.files(__package__) / "presets"


def shipped() -> list[str]:
    """Names of the configurations that come with the package."""
    files = (x.name for x in PRESETS.iterdir() if x.name.endswith(".toml"))
    return sorted(name.removesuffix(".toml") for name in files)
