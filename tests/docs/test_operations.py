"""docs/operations.md names every setting of both services, and no other."""

import re
from pathlib import Path

import pytest

from feature_service.settings import FeatureSettings
from model_service.settings import ModelSettings
from service_runtime.settings import ServiceSettings

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("settings", [FeatureSettings, ModelSettings], ids=["feature_service", "model_service"])
def test_the_page_has_a_row_for_each_setting(settings: type[ServiceSettings]) -> None:
    """A setting that is added, renamed or removed is so in the page."""
    _, _, page = PAGE.partition("\n## Settings\n")
    prefix = settings.model_config.get("env_prefix", "")

    documented = re.findall(rf"^\| `({prefix}\w+)` \|", page, flags=re.MULTILINE)

    assert sorted(documented) == sorted(settings.variables().values())
