"""What a stack that nothing has happened to answers: what every later answer is held to. Knows RPCs; knows no fault."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from marquee.client.channel import open_channel
from marquee.client.model_client import ModelClient
from marquee.v1 import feature_service_pb2 as fpb
from marquee.v1 import feature_service_pb2_grpc, user_pb2

from tests.feature_service import messages as make

K = 10
_TIMEOUT_S = 30.0
Pair = tuple[str, str]


@dataclass(frozen=True)
class Truth:
    """Right answers; nobody writes to these users.

    Attributes:
        ratings: Stars by user and movie.
        lists: The best movies by user.
        users: What is stored of each.
        movie_ids: The catalogue.
        model_version: What answers.
    """

    ratings: Mapping[Pair, float]
    lists: Mapping[str, Sequence[str]]
    users: Mapping[str, user_pb2.User]
    movie_ids: Sequence[str]
    model_version: str


async def learn_truth(
    features_address: str, model_address: str, user_ids: Sequence[str], movie_ids: Sequence[str]
) -> Truth:
    """Asks two services that are ready for all right answers about these users and movies."""
    pairs = [(user_id, movie_ids[7 * row % len(movie_ids)]) for row, user_id in enumerate(user_ids)]
    async with ModelClient(model_address, timeout_s=_TIMEOUT_S) as model:
        predicted = [await model.predict_rating(*pair) for pair in pairs]
        lists = {user_id: (await model.top_k(user_id, K)).movie_ids for user_id in user_ids}
    async with open_channel(features_address) as channel:
        features = feature_service_pb2_grpc.FeatureServiceStub(channel)
        request = make.users(*user_ids, view=fpb.USER_VIEW_FULL)
        stored = (await features.BatchGetUsers(request, timeout=_TIMEOUT_S)).users
    ratings = {pair: answer.rating for pair, answer in zip(pairs, predicted, strict=True)}
    assert len(set(ratings.values())) > len(ratings) // 2, (
        "answers that are all alike could not be told from wrong ones"
    )
    (version,) = {answer.model_version for answer in predicted}
    return Truth(ratings, lists, {user.user_id: user for user in stored}, movie_ids, version)
