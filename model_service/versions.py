"""Chooses the model that answers a request: the one it names, else the one on trial on its user, else who serves."""

from collections.abc import Sequence

from marquee.v1 import model_service_pb2

from model_service.canaries import is_among
from model_service.generation import Generation
from model_service.generations import Generations
from model_service.rollout import Rollout
from model_service.trials import Trial
from service_runtime.errors import FailedPrecondition


def not_resident(asked: str, generations: Generations) -> FailedPrecondition:
    """Returns the refusal of a request that wants what is not in memory."""
    serving = generations.current().checkpoint.version
    others = sorted(generations.versions - {serving})
    also = f", and {', '.join(others)} for who names them" if others else ""
    return FailedPrecondition(
        f"{asked} is not resident; version {serving} is{also}",
        reason="MODEL_NOT_RESIDENT",
        metadata={"resident_model_version": serving, "resident_model_versions": ",".join([serving, *others])},
    )


class Versions:
    """What is in memory, and the labels as this replica last saw them."""

    def __init__(self, generations: Generations, rollout: Rollout) -> None:
        self._generations = generations
        self._rollout = rollout

    def choose(self, selector: model_service_pb2.ModelSelector, user_id: str = "") -> str | None:
        """Returns the version that is to answer; None is whichever serves when the answer is made.

        Args:
            selector: Of the request.
            user_id: Of whom the answer is about; "" if of nobody, or of one without an id: he is on no trial.

        Raises:
            FailedPrecondition: What is named is not in memory; says what is.
            Unavailable: Nothing is yet.
        """
        kind = selector.WhichOneof("selector")
        if kind is None:
            canary = self._rollout.canary
            if canary is not None and user_id and is_among(user_id, canary.version, canary.percent):
                return canary.version
            return None
        if kind == "model_version":
            wanted: str | None = selector.model_version
            asked = f"version {selector.model_version[:80]!r}"
        else:
            wanted = self._rollout.version_of(selector.label)
            asked = f"label {selector.label[:80]!r} ({f'version {wanted}' if wanted else 'which names no version'})"
        self.require(wanted, asked)
        return wanted

    def choose_for(
        self, selector: model_service_pb2.ModelSelector, user_ids: Sequence[str]
    ) -> tuple[str | None, Trial | None]:
        """Returns the version that is to answer for many users, as `choose`, and for whom of them another one is.

        Args:
            selector: Of the request.
            user_ids: Of whom the answers are about; "" of one without an id.

        Raises:
            FailedPrecondition: What is named is not in memory; says what is.
            Unavailable: Nothing is yet.
        """
        canary = self._rollout.canary
        if canary is None or selector.WhichOneof("selector") is not None:
            return self.choose(selector), None
        on_trial = [bool(each) and is_among(each, canary.version, canary.percent) for each in user_ids]
        tried = [place for place, is_tried in enumerate(on_trial) if is_tried]
        others = [place for place, is_tried in enumerate(on_trial) if not is_tried]
        if not tried:
            return None, None
        return (None, Trial(canary.version, tried, others)) if others else (canary.version, None)

    def generation(self, version: str | None) -> Generation:
        """Returns what answers for a chosen version now.

        Raises:
            FailedPrecondition: It has left the memory meanwhile.
            Unavailable: Nothing answers yet.
        """
        generation = self._generations.residents().of(version)
        if generation is None:
            raise not_resident(f"version {version!r}", self._generations)
        return generation

    def require(self, version: str | None, asked: str) -> None:
        """Refuses what is not in memory.

        Raises:
            FailedPrecondition: Says what is.
            Unavailable: Nothing is yet.
        """
        if version is None or self._generations.residents().of(version) is None:
            raise not_resident(asked, self._generations)
