"""Tells Prometheus which models and which catalogue answer. Knows versions and times; knows no tensor."""

from model_service.generations import Generations
from model_service.residents import Residents
from model_service.rollout import Rollout
from service_runtime.errors import Unavailable
from service_runtime.metrics import Metrics, Numbers


def tell_models(metrics: Metrics, generations: Generations, rollout: Rollout) -> None:
    """Defines the metrics of what is in memory; there are none before anything answers."""

    def residents() -> Residents | None:
        try:
            return generations.residents()
        except Unavailable:
            return None

    def info() -> Numbers:
        known = residents()
        if known is None:
            return {}
        canary = rollout.canary
        roles = dict.fromkeys(known.by_version, "resident")
        if canary is not None:
            roles[canary.version] = "canary"
        roles[known.serving.checkpoint.version] = "serving"
        return {
            (version, known.by_version[version].checkpoint.manifest.model, role): 1
            for version, role in roles.items()
            if version in known.by_version
        }

    def of_serving(read: str) -> Numbers:
        known = residents()
        if known is None:
            return {}
        manifest = known.serving.checkpoint.manifest
        if read == "loaded":
            return {(): rollout.table[known.serving.checkpoint.version].loaded_at_ms / 1000}
        return {(): manifest.data_until_ms / 1000} if manifest.has_times else {}

    def of_catalogue(read: str) -> Numbers:
        known = residents()
        if known is None:
            return {}
        return {(): known.catalogue.version if read == "version" else len(known.catalogue)}

    metrics.gauge_of(
        "resident_info",
        "1 for each model in memory; its role is serving, canary or resident.",
        info,
        ["version", "model", "role"],
    )
    metrics.gauge_of("canary_ratio", "Share of users that the canary answers.", lambda: {(): _canary_ratio(rollout)})
    metrics.gauge_of("refused_versions", "Versions that could not be loaded.", lambda: {(): rollout.table.num_failed})
    metrics.gauge_of(
        "serving_loaded_timestamp_seconds", "When the model that serves was loaded.", lambda: of_serving("loaded")
    )
    metrics.gauge_of(
        "serving_data_timestamp_seconds",
        "Newest rating that the model that serves was trained on.",
        lambda: of_serving("data"),
    )
    metrics.gauge_of("catalogue_version", "Version of the catalogue.", lambda: of_catalogue("version"))
    metrics.gauge_of("catalogue_movies", "Movies in the catalogue.", lambda: of_catalogue("movies"))


def _canary_ratio(rollout: Rollout) -> float:
    return 0.0 if rollout.canary is None else rollout.canary.percent / 100
