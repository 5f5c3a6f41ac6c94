"""Takes a batch from its members to their answers: one read of the store, one pass over the device. Knows no RPC."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from model_service.admission import no_ratings
from model_service.batcher import Member
from model_service.catalogue_mirror import InBackground
from model_service.device_work import DeviceWork
from model_service.features import catalogue_replaced
from model_service.generation import Generation
from model_service.generations import Generations
from model_service.near_features import NearFeatures, NearRead, newer_version
from model_service.queries import Answer, NamedUsers, RatingTask, Task, TopKTask, stored_ids
from model_service.residents import Residents
from model_service.user_side import StoredUsers
from service_runtime.errors import ServiceError, Unavailable

Clock = Callable[[], float]

_AT_ONCE_S = 0.02


class Pipeline:
    """Works on one batch at a time on the device, and reads the users of the next one meanwhile.

    Attributes:
        num_spared: Requests whose callers had gone while their users were read: no model time was spent on them.
    """

    def __init__(
        self,
        features: NearFeatures,
        generations: Generations,
        work: DeviceWork,
        on_device: InBackground,
        *,
        answer_without_features: bool,
        clock: Clock,
        wall_clock: Clock,
    ) -> None:
        """Stores the stages.

        Args:
            features: Reads users.
            generations: Gives what answers.
            work: Scores.
            on_device: Runs a function in the thread that owns the device.
            answer_without_features: Whether users are answered as if nobody had stored them while the store cannot
                be read; else they are refused.
            clock: Monotonic seconds.
            wall_clock: Seconds since the epoch.
        """
        self._features = features
        self._generations = generations
        self._work = work
        self._on_device = on_device
        self._answer_without_features = answer_without_features
        self._clock = clock
        self._wall_clock = wall_clock
        self.num_spared = 0

    async def __call__(self, members: Sequence[Member[Task, Answer]]) -> None:
        """Answers each member of a batch."""
        residents = self._generations.residents()
        read: NearRead | None = None
        user_ids = list(dict.fromkeys(_stored_ids(members)))
        try:
            if user_ids:
                fresh = await self._read(user_ids, members, residents)
                await self._generations.covering(fresh.catalogue_id, fresh.catalogue_version, fresh.num_movies_named())
                residents, read = self._generations.residents(), fresh
        except ServiceError as error:
            members = self._without_features(members, error)
            residents = self._generations.residents()
        members = _of_this_catalogue(members, residents)
        now = self._clock()
        live = [member for member in members if member.is_live(now)]
        self.num_spared += len(members) - len(live)
        if not live:
            return
        now_ms = int(self._wall_clock() * 1000)
        # Nearly always one: requests of a version on trial, or admitted before a swap, are answered beside the others.
        for generation, ours in _by_generation(live, residents):
            tasks = [member.payload for member in ours]
            stored = None if read is None else self._stored(user_ids, read, generation)
            if self._work.is_quick(tasks, stored, generation):
                answers, made = self._work.answer_and_embed(tasks, stored, generation, now_ms)
            else:
                answers, made = await self._on_device(self._work.answer_and_embed, tasks, stored, generation, now_ms)
            if stored is not None:
                self._features.keep(made, stored.users)
            for member, answer in zip(ours, answers, strict=True):
                member.answer(answer)

    def _stored(self, user_ids: Sequence[str], read: NearRead, generation: Generation) -> StoredUsers:
        return StoredUsers(
            dict(zip(user_ids, read.users, strict=True)),
            self._features.embedded(user_ids, read, generation.heads),
            self._features.keeps,
        )

    async def _read(
        self, user_ids: Sequence[str], members: Sequence[Member[Task, Answer]], residents: Residents
    ) -> NearRead:
        return await self._features.read_users(
            user_ids,
            max(each.checkpoint.manifest.history_window for each in residents.by_version.values()),
            with_seen=any(_wants_seen(member.payload) for member in members),
            deadline=max(member.deadline for member in members),
            at_least=_versions_wanted(members),
        )

    def _without_features(
        self, members: Sequence[Member[Task, Answer]], error: ServiceError
    ) -> list[Member[Task, Answer]]:
        """Returns the members that can be answered without the store, and refuses the others."""
        if self._answer_without_features:
            return list(members)
        for member in members:
            if any(stored_ids(member.payload.users)):
                member.answer(error)
        return [member for member in members if not any(stored_ids(member.payload.users))]


def _stored_ids(members: Sequence[Member[Task, Answer]]) -> Iterator[str]:
    return filter(None, chain.from_iterable(stored_ids(member.payload.users) for member in members))


def _versions_wanted(members: Sequence[Member[Task, Answer]]) -> dict[str, str]:
    """Returns the versions that callers know of: of several for one user the newest."""
    wanted: dict[str, str] = {}
    for member in members:
        if isinstance(member.payload.users, NamedUsers):
            continue
        for query in member.payload.users:
            if query.user_id is not None and query.min_user_version:
                known = wanted.get(query.user_id, "")
                wanted[query.user_id] = newer_version(known, query.min_user_version)
    return wanted


def _wants_seen(task: Task) -> bool:
    return isinstance(task, TopKTask) and task.exclude_seen and any(stored_ids(task.users))


def _of_this_catalogue(members: Sequence[Member[Task, Answer]], residents: Residents) -> list[Member[Task, Answer]]:
    """Returns the members whose catalogue numbers mean what the models mean by them, and refuses the others."""
    ours = []
    for member in members:
        if member.payload.catalogue_id == residents.catalogue.catalogue_id:
            ours.append(member)
        else:
            member.answer(catalogue_replaced())
    return ours


def _by_generation(
    members: Sequence[Member[Task, Answer]], residents: Residents
) -> list[tuple[Generation, list[Member[Task, Answer]]]]:
    """Returns the members by who is to answer them, and refuses those whose model has left meanwhile."""
    groups: dict[str, tuple[Generation, list[Member[Task, Answer]]]] = {}
    for member in members:
        generation = residents.of(member.payload.model_version)
        if generation is None:
            member.answer(
                Unavailable("another model serves since you asked", reason="MODEL_REPLACED", retry_after_s=_AT_ONCE_S)
            )
        elif isinstance(member.payload, RatingTask) and generation.checkpoint.model.rating_scale is None:
            member.answer(no_ratings(generation))
        else:
            groups.setdefault(generation.checkpoint.version, (generation, []))[1].append(member)
    return list(groups.values())
