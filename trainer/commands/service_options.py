"""The option by which every command is told where feature_service is. Knows its text; calls nobody."""

from typing import Annotated

import typer

FeatureServiceOption = Annotated[
    str, typer.Option("--feature-service", metavar="HOST:PORT", help="Where feature_service listens.")
]

DEFAULT_FEATURE_SERVICE = "127.0.0.1:50051"
