"""Runs feature_service as a process of its own, whose log is read as it grows."""

from pathlib import Path

from tests.logged_process import LoggedProcess


class FeatureProcess(LoggedProcess):
    """A running feature_service."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """Starts it; the settings are FEATURE_* variables."""
        variables = {"FEATURE_LISTEN": "127.0.0.1:0", "FEATURE_DATA_DIR": str(folder / "data"), **settings}
        super().__init__("feature_service", folder, variables)
