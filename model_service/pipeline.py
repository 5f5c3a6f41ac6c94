"""Takes a batch from its members to their answers: one read of the store, one pass over the device. Knows no RPC."""

from collections.abc import Callable, Iterator, Sequence

from model_service.batcher import Member
from model_service.catalogue_mirror import InBackground
from model_service.device_work import DeviceWork
from model_service.features import UsersRead, catalogue_replaced
from model_service.generation import Generation
from model_service.generations import Generations
from model_service.near_features import NearFeatures, newer_version
from model_service.queries import Answer, Task, TopKTask
from model_service.user_side import StoredUsers
from service_runtime.errors import ServiceError

Clock = Callable[[], float]


class Pipeline:
    """Works on one batch at a time on the device, and reads the users of the next one meanwhile."""

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

    async def __call__(self, members: Sequence[Member[Task, Answer]]) -> None:
        """Answers each member of a batch."""
        generation = self._generations.current()
        stored: StoredUsers | None = None
        try:
            user_ids = list(dict.fromkeys(_stored_ids(members)))
            if user_ids:
                read = await self._read(user_ids, members, generation)
                generation = await self._generations.covering(
                    read.catalogue_id, read.catalogue_version, read.num_movies_named()
                )
                stored = StoredUsers(
                    dict(zip(user_ids, read.users, strict=True)),
                    self._features.embedded(user_ids, read, generation.heads),
                    self._features.keeps,
                )
        except ServiceError as error:
            members = self._without_features(members, error)
            generation = self._generations.current()
        members = _of_this_catalogue(members, generation)
        now = self._clock()
        live = [member for member in members if member.is_live(now)]
        if not live:
            return
        tasks = [member.payload for member in live]
        now_ms = int(self._wall_clock() * 1000)
        answers, made = await self._on_device(self._work.answer_and_embed, tasks, stored, generation, now_ms)
        if stored is not None:
            self._features.keep(made, stored.users)
        for member, answer in zip(live, answers, strict=True):
            member.answer(answer)

    async def _read(
        self, user_ids: Sequence[str], members: Sequence[Member[Task, Answer]], generation: Generation
    ) -> UsersRead:
        return await self._features.read_users(
            user_ids,
            generation.checkpoint.manifest.history_window,
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
            if any(query.user_id is not None for query in member.payload.users):
                member.answer(error)
        return [member for member in members if all(query.user_id is None for query in member.payload.users)]


def _stored_ids(members: Sequence[Member[Task, Answer]]) -> Iterator[str]:
    for member in members:
        for query in member.payload.users:
            if query.user_id is not None:
                yield query.user_id


def _versions_wanted(members: Sequence[Member[Task, Answer]]) -> dict[str, str]:
    """Returns the versions that callers know of: of several for one user the newest."""
    wanted: dict[str, str] = {}
    for member in members:
        for query in member.payload.users:
            if query.user_id is not None and query.min_user_version:
                known = wanted.get(query.user_id, "")
                wanted[query.user_id] = newer_version(known, query.min_user_version)
    return wanted


def _wants_seen(task: Task) -> bool:
    return isinstance(task, TopKTask) and task.exclude_seen and any(query.user_id is not None for query in task.users)


def _of_this_catalogue(members: Sequence[Member[Task, Answer]], generation: Generation) -> list[Member[Task, Answer]]:
    """Returns the members whose catalogue numbers mean what the generation means by them, and refuses the others."""
    ours = []
    for member in members:
        if member.payload.catalogue_id == generation.catalogue.catalogue_id:
            ours.append(member)
        else:
            member.answer(catalogue_replaced())
    return ours
