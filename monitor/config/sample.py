"""The commented sample, config.toml at the root of the repository; it travels in the package."""

from importlib.resources import files


def sample_text() -> str:
    """The sample as it stands: loaded, it is the default configuration."""
    return files("monitor.config").joinpath("config.toml").read_text(encoding="utf-8")
