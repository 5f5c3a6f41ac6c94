"""Whatever is written, deleted, imported and expires in whatever order: the store answers as a plain-Python model does.

MARQUEE_PROPERTY_EXAMPLES and MARQUEE_PROPERTY_STEPS say how much is tried; `make test-properties` tries far more.
"""

import os

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from marquee.client.user_digest import user_digest
from marquee.client.user_version import UserVersion

from feature_service.value_format import event_hash
from tests.feature_service.properties_model import FOUND, Lives, ModelUser, Watched, history_of
from tests.feature_service.properties_world import USERS, WINDOW, World

NUM_EXAMPLES = int(os.environ.get("MARQUEE_PROPERTY_EXAMPLES", "25"))
NUM_STEPS = int(os.environ.get("MARQUEE_PROPERTY_STEPS", "25"))

# Few movies and times, so that they meet; numbers on both sides of the seen set's two formats.
MOVIES = [0, 1, 2, 3, 4, 5, 16_383, 16_384]
SECOND_MS = 1000
# More than any user has events. Every step looks at the whole log: in small pages that was two thirds of the time.
A_WHOLE_STORY = 150
movies = st.sampled_from(MOVIES)
# Most befalls one of them, so that his story is long.
people = st.sampled_from([0, 0, 0, *range(len(USERS))])
ratings = st.sampled_from([None, None, 0.0, 3.0, 4.5])
offsets_s = st.integers(-8, 3)
event_rows = st.tuples(people, st.sampled_from("abc"), movies, ratings, offsets_s)
entry_rows = st.tuples(movies, ratings, st.none() | offsets_s)
lives_s = st.sampled_from([0, 4, 4, 20])
visible_s = st.sampled_from([0, 10])
fields = st.fixed_dictionaries(
    {},
    optional={
        "gender": st.sampled_from(["F", "M"]),
        "age": st.sampled_from([0, 30]),
        "occupation": st.just("Künstlerin"),
        "zip": st.just("1"),
    },
)

Event = tuple[int, str, int, float | None, int]  # place in USERS, event_id, movie number, rating, time in ms


class StoreMachine(RuleBasedStateMachine):
    """Does the same to a store and to the model of it, and compares what they tell."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.models = [ModelUser(WINDOW) for _ in USERS]
        self.sent: list[Event] = []
        # Calls that raced leave a log whose order, and whose choice of events that were applied, nobody can foretell.
        self.raced = [False] * len(USERS)

    @initialize(profile_s=lives_s, history_s=lives_s, visible_s=visible_s)
    def begin(self, profile_s: int, history_s: int, visible_s: int) -> None:
        """An empty store, whose data lives as long as it is told to."""
        self.world.empty()
        self.start_again_with_other_lifetimes(profile_s, history_s, visible_s)
        self.read = self.world.read_columns()
        self.newest = [UserVersion.parse(row.version) for row in self.read]
        self.changed: set[int] = set()

    @rule(profile_s=lives_s, history_s=lives_s, visible_s=visible_s)
    def start_again_with_other_lifetimes(self, profile_s: int, history_s: int, visible_s: int) -> None:
        """They count from the next write."""
        self.lives = Lives(*(seconds * SECOND_MS for seconds in (profile_s, history_s, visible_s)))
        self.world.start(self.lives)

    @rule(seconds=st.sampled_from([1, 5, 5, 30]))
    def let_time_pass(self, seconds: int) -> None:
        """Some of what is stored expires."""
        self.world.clock.now_ms += seconds * SECOND_MS

    @rule()
    def let_redis_forget(self) -> None:
        """Redis's clock reaches that of the service."""
        self.world.redis_forgets()
        for who, model in enumerate(self.models):
            if model.redis_forgets(self.now):
                self.world.wait_until_told(who)

    @rule(rows=st.lists(event_rows, min_size=1, max_size=6))
    def write_events(self, rows: list[Event]) -> None:
        """Events with the times of now, before, and a little ahead."""
        self.write([(who, name, movie, stars, self.now + s * SECOND_MS) for who, name, movie, stars, s in rows])

    @precondition(lambda self: self.sent)
    @rule(choices=st.lists(st.integers(0, 10_000), min_size=1, max_size=6))
    def write_some_again(self, choices: list[int]) -> None:
        """Events that were sent before, in another order and company."""
        self.write([self.sent[choice % len(self.sent)] for choice in choices])

    @rule(who=people, rows=st.lists(st.tuples(movies, ratings, offsets_s), min_size=2, max_size=9))
    def write_at_once(self, who: int, rows: list[tuple[int, float | None, int]]) -> None:
        """Each event in a call of its own, and all calls under way together: their order is anybody's guess."""
        events = [(who, f"r{at}", movie, stars, self.now + s * SECOND_MS) for at, (movie, stars, s) in enumerate(rows)]
        self.raced[who] = True
        self.sent += events
        self.world.write_at_once(events)
        changed, _ = self.models[who].write(self.now, self.lives, watched(events), imported=False)
        if changed:
            self.has_changed(who)

    @rule(who=people, given=fields, cleared=st.sets(st.sampled_from(["gender", "age", "zip"])))
    def upsert(self, who: int, given: dict[str, str | int], cleared: set[str]) -> None:
        """Sets and clears fields of a profile."""
        clear_fields = sorted(cleared - given.keys())
        version = self.world.upsert(who, given, clear_fields)
        changed = self.models[who].upsert(self.now, self.lives, given, clear_fields)
        self.was_answered(who, version, changed=changed)

    @rule(who=people)
    def delete(self, who: int) -> None:
        """Forgets a user, whoever he is."""
        deletions_before = len(self.models[who].deletions)
        existed, version = self.world.delete(who)
        assert existed == self.models[who].delete(self.now)
        self.was_answered(who, version, changed=len(self.models[who].deletions) > deletions_before)

    @rule(histories=st.dictionaries(people, st.lists(entry_rows, max_size=8), min_size=1, max_size=3))
    def import_histories(self, histories: dict[int, list[tuple[int, float | None, int | None]]]) -> None:
        """Loads histories in bulk; entries without a time count as older than all others."""
        timed = {
            who: [Watched(movie, stars, 0 if s is None else self.now + s * SECOND_MS) for movie, stars, s in rows]
            for who, rows in histories.items()
        }
        num_applied, num_unchanged, versions = self.world.load(timed)
        assert num_applied + num_unchanged == sum(map(len, timed.values()))
        for (who, events), version in zip(timed.items(), versions, strict=True):
            changed, _ = self.models[who].write(self.now, self.lives, events, imported=True)
            self.was_answered(who, version, changed=changed)

    @rule(limit=st.integers(0, WINDOW + 1), who=st.lists(people, min_size=1, max_size=3))
    def read_typed_fields(self, limit: int, who: list[int]) -> None:
        """The other view tells the same, also of a user who is asked for twice."""
        for user, row in zip(who, self.world.read_full(who, limit), strict=True):
            wanted = self.models[user].row(self.now)
            assert (row.status, row.profile, row.deleted_at_ms) == (wanted.status, wanted.profile, wanted.deleted_at_ms)
            assert row.history == wanted.history[:limit]
            assert row.num_watched == len(wanted.seen)
            assert row.version == self.read[user].version

    @rule(entries_a_partition=st.integers(2, 8))
    def page_through_the_event_log(self, entries_a_partition: int) -> None:
        """Many small pages tell what a large one does."""
        assert self.world.export(entries_a_partition) == self.world.export(A_WHOLE_STORY)

    @invariant()
    def readers_are_told_what_the_model_says(self) -> None:
        """Of every user, after every step; and no version goes back, or stays where something changed."""
        before, self.read = self.read, self.world.read_columns()
        changed, self.changed = self.changed, set()
        for who, found in enumerate(self.read):
            assert found.row == self.models[who].row(self.now), USERS[who]
            version = UserVersion.parse(found.version)
            assert version.includes(self.newest[who]), USERS[who]
            self.newest[who] = version
            if who in changed:
                assert found.version != before[who].version, USERS[who]
            elif found.row.status == before[who].row.status == FOUND:
                assert found.version == before[who].version, USERS[who]

    @invariant()
    def the_event_log_tells_it_all(self) -> None:
        """What is exported are the events that changed something, and they come to the same state."""
        events, deletions = self.world.export(A_WHOLE_STORY)
        for who, (user, model) in enumerate(zip(USERS, self.models, strict=True)):
            assert deletions.get(user_digest(user), []) == model.deletions
            exported = events.get(user, [])
            assert self.raced[who] or exported == model.logged, user
            # Nobody who has the log alone can know what expired.
            if not model.lost_a_history and model.row(self.now).seen:
                last_deletion = max(model.deletions, default=-1)
                kept = [event for event in exported if event.time_ms > last_deletion]
                replayed = history_of([*kept, *model.imported], WINDOW)
                row = self.read[who].row
                assert (replayed.entries(), sorted(replayed.seen)) == (row.history, row.seen), user

    @property
    def now(self) -> int:
        return self.world.clock.now_ms

    def write(self, events: list[Event]) -> None:
        self.sent += events
        answers = self.world.write(events)
        for who in sorted({event[0] for event in events}):
            own = [at for at, event in enumerate(events) if event[0] == who]
            changed, statuses = self.models[who].write(
                self.now, self.lives, watched([events[at] for at in own]), imported=False
            )
            assert [answers[at][0] for at in own] == statuses, USERS[who]
            (version,) = {answers[at][1] for at in own}
            self.was_answered(who, version, changed=changed)

    def was_answered(self, who: int, version: str, *, changed: bool) -> None:
        """Checks the version that a writer got: the next reader must not be older than it."""
        if changed:
            assert not self.newest[who].includes(UserVersion.parse(version)), USERS[who]
            self.newest[who] = UserVersion.parse(version)
            self.has_changed(who)
        else:
            assert self.newest[who].includes(UserVersion.parse(version)), USERS[who]

    def has_changed(self, who: int) -> None:
        """Waits until subscribers are told of a user."""
        self.changed.add(who)
        self.world.wait_until_told(who)


def watched(events: list[Event]) -> list[Watched]:
    """Returns the events of one user as the model takes them."""
    return [Watched(movie, stars, time, event_hash(name)) for _, name, movie, stars, time in events]


def test_the_store_is_its_model(running_redis):
    """Any interleaving of all that can happen to it, seen through both views, the log and the feed."""
    with World(running_redis) as world:
        run_state_machine_as_test(
            lambda: StoreMachine(world),
            settings=settings(
                max_examples=NUM_EXAMPLES,
                stateful_step_count=NUM_STEPS,
                deadline=None,
                report_multiple_bugs=False,
                phases=set(Phase) - ({Phase.shrink} if os.environ.get("MARQUEE_PROPERTY_SHRINK") == "no" else set()),
                suppress_health_check=list(HealthCheck),
            ),
        )
