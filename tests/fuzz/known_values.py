"""What a running store and registry know, so that requests can ask for what there is. Knows stubs; makes nothing up."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from marquee.v1 import (
    feature_service_pb2,
    feature_service_pb2_grpc,
    model_admin_pb2,
    model_admin_pb2_grpc,
)

_TIMEOUT_S = 60.0
_NUM_KNOWN = 40


@dataclass(frozen=True)
class KnownValues:
    """Ids, versions and positions of a running stack; empty where there is nothing of the kind.

    Attributes:
        user_versions: By user.
        page_tokens: Of pages that list the whole catalogue.
        log_positions: Where the event log can be read from.
        labels: Of the registry, by which a resident version can be named.
    """

    user_ids: Sequence[str]
    movie_ids: Sequence[str]
    genres: Sequence[str] = ()
    user_versions: dict[str, str] = field(default_factory=dict)
    page_tokens: Sequence[str] = ()
    log_positions: Sequence[str] = ()
    change_positions: Sequence[str] = ()
    catalogue_version: int = 0
    model_versions: Sequence[str] = ()
    labels: Sequence[str] = ()


def gather(
    features: feature_service_pb2_grpc.FeatureServiceStub,
    admin: model_admin_pb2_grpc.ModelAdminServiceStub | None,
    user_ids: Sequence[str],
    movie_ids: Sequence[str],
) -> KnownValues:
    """Asks the services what there is beside the given users and movies."""
    users, movies = list(user_ids[:_NUM_KNOWN]), list(movie_ids[:_NUM_KNOWN])
    read = features.BatchGetUsers(feature_service_pb2.BatchGetUsersRequest(user_ids=users), timeout=_TIMEOUT_S)
    versions = {user.user_id: user.user_version for user in read.users}
    found = features.BatchGetMovies(feature_service_pb2.BatchGetMoviesRequest(movie_ids=movies), timeout=_TIMEOUT_S)
    page = features.ListMovies(feature_service_pb2.ListMoviesRequest(page_size=1), timeout=_TIMEOUT_S)
    log = features.ExportEvents(feature_service_pb2.ExportEventsRequest(page_size=64), timeout=_TIMEOUT_S)
    changes = features.StreamChanges(feature_service_pb2.StreamChangesRequest(), timeout=_TIMEOUT_S)
    change_position = next(changes).position
    changes.cancel()
    info = features.GetStoreInfo(feature_service_pb2.GetStoreInfoRequest(), timeout=_TIMEOUT_S)
    model_versions: list[str] = []
    labels: list[str] = []
    if admin is not None:
        listed = admin.ListModels(model_admin_pb2.ListModelsRequest(), timeout=_TIMEOUT_S)
        resident = [model for model in listed.models if model.state == model_admin_pb2.MODEL_STATE_RESIDENT]
        model_versions = [model.model_version for model in resident]
        labels = sorted({label for model in resident for label in model.labels})
    return KnownValues(
        users,
        movies,
        sorted({genre for movie in found.movies for genre in movie.genres}),
        versions,
        [token for token in [page.next_page_token] if token],
        [log.next_position, info.log_position],
        [change_position],
        info.catalogue_version,
        model_versions,
        labels,
    )
