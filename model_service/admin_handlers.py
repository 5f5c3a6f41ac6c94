"""Answers the RPCs of ModelAdminService: message in, registry or rollout, message out. Knows no tensor and no gRPC."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from marquee.v1 import model_admin_pb2 as pb

from model_service.generations import Generations
from model_service.model_table import State
from model_service.rollout import Rollout
from service_runtime.errors import FailedPrecondition, InvalidRequest, NotFound, Unavailable, Violation
from service_runtime.server import Call
from two_tower.errors import InvalidNameError, RegistryError, UnknownVersionError
from two_tower.registry import Canary, LabelChange, Registry

MAX_MODELS = 1000
MAX_CHANGES = 20
MAX_REASON_CHARACTERS = 500

_STATES = {
    State.AVAILABLE: pb.MODEL_STATE_AVAILABLE,
    State.LOADING: pb.MODEL_STATE_LOADING,
    State.RESIDENT: pb.MODEL_STATE_RESIDENT,
    State.FAILED: pb.MODEL_STATE_FAILED,
}
_Result = TypeVar("_Result")


class AdminHandlers:
    """One method per RPC; `service_runtime.server` gives them messages and takes theirs."""

    def __init__(self, registry: Registry, label: str, generations: Generations, rollout: Rollout) -> None:
        """Stores what is shown and moved.

        Args:
            registry: Holds versions and labels.
            label: What this replica serves.
            generations: What is in memory.
            rollout: Brings versions into memory.
        """
        self._registry = registry
        self._label = label
        self._generations = generations
        self._rollout = rollout

    async def list_models(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        """Lists versions and labels."""
        versions = await _of_registry(self._registry.versions)
        names = await _of_registry(self._registry.labels)
        histories = {name: await _of_registry(self._registry.label_history, name) for name in names}
        # What is in memory is shown also when its folder is gone.
        newest = sorted({*versions, *self._generations.versions}, reverse=True)[:MAX_MODELS]
        return pb.ListModelsResponse(
            models=[self._model(version, names) for version in newest],
            labels=[_label(name, changes) for name, changes in histories.items()],
            serving_label=self._label,
        )

    async def load_model(self, request: pb.LoadModelRequest, call: Call) -> pb.LoadModelResponse:
        """Makes a version resident."""
        await self._bring_in(request.model_version, "model_version")
        labels = await _of_registry(self._registry.labels)
        return pb.LoadModelResponse(model=self._model(request.model_version, labels))

    async def set_label(self, request: pb.SetLabelRequest, call: Call) -> pb.SetLabelResponse:
        """Moves a label; what it is to name has to load here first."""
        canary = request.canary if request.HasField("canary") else None
        violations = _reason_violations(request.reason)
        if canary is not None and not 0 < canary.percent <= 100:
            violations.append(Violation("canary.percent", f"{canary.percent:g}; above 0 and at most 100 is right"))
        if violations:
            raise InvalidRequest(violations)
        named = await _of_registry(self._registry.label_history, request.label, field="label")
        version = request.model_version or (named[-1].version if named else "")
        if not version:
            raise InvalidRequest([Violation("model_version", f"needed: label {request.label!r:.80} names nothing yet")])
        await self._bring_in(version, "model_version")
        if canary is not None:
            await self._bring_in(canary.model_version, "canary.model_version")
        trial = None if canary is None else Canary(canary.model_version, canary.percent)
        await _of_registry(
            lambda: self._registry.set_label(request.label, version, reason=request.reason, canary=trial),
            field="label",
        )
        return pb.SetLabelResponse(label=await self._moved(request.label))

    async def rollback(self, request: pb.RollbackRequest, call: Call) -> pb.RollbackResponse:
        """Moves a label back."""
        violations = _reason_violations(request.reason)
        if violations:
            raise InvalidRequest(violations)
        try:
            await asyncio.to_thread(self._registry.roll_back, request.label, reason=request.reason)
        except InvalidNameError as error:
            raise InvalidRequest([Violation("label", str(error))]) from error
        except UnknownVersionError as error:
            raise FailedPrecondition(str(error), reason="NOTHING_TO_ROLL_BACK_TO") from error
        except RegistryError as error:
            raise _unreadable(error) from error
        return pb.RollbackResponse(label=await self._moved(request.label))

    async def _bring_in(self, version: str, field: str) -> None:
        """Makes a version resident.

        Raises:
            InvalidRequest: No version can be called that.
            NotFound: There is none.
            FailedPrecondition: It was refused; says why.
            Unavailable: Nothing serves yet, or the registry cannot be read.
        """
        self._generations.current()
        try:
            await self._rollout.load(version)
        except InvalidNameError as error:
            raise InvalidRequest([Violation(field, str(error))]) from error
        except UnknownVersionError as error:
            raise NotFound("model", [version], reason="MODEL_NOT_FOUND") from error
        except RegistryError as error:
            raise _unreadable(error) from error
        if version not in self._generations.versions:
            raise FailedPrecondition(
                f"version {version} cannot be served: {self._rollout.table[version].reason}", reason="MODEL_REFUSED"
            )

    async def _moved(self, name: str) -> pb.Label:
        self._rollout.look_soon()
        return _label(name, await _of_registry(self._registry.label_history, name))

    def _model(self, version: str, labels: dict[str, str]) -> pb.Model:
        entry = self._rollout.table[version]
        model = pb.Model(
            model_version=version,
            state=_STATES[entry.state],
            reason=entry.reason,
            serving=version == self._generations.serving_version,
            model=entry.model,
            labels=[name for name, labelled in labels.items() if labelled == version],
        )
        if entry.data_until_ms:
            model.data_until.CopyFrom(_moment(entry.data_until_ms))
        if entry.loaded_at_ms:
            model.loaded_at.CopyFrom(_moment(entry.loaded_at_ms))
        return model


async def _of_registry(read: Callable[..., _Result], *arguments: str, field: str = "") -> _Result:
    """Returns what the registry says, read beside the event loop.

    Raises:
        InvalidRequest: `field` names what nothing can be called.
        Unavailable: It cannot be read or written.
    """
    try:
        return await asyncio.to_thread(read, *arguments)
    except InvalidNameError as error:
        raise InvalidRequest([Violation(field, str(error))]) from error
    except RegistryError as error:
        raise _unreadable(error) from error


def _unreadable(error: RegistryError) -> Unavailable:
    return Unavailable(str(error), reason="REGISTRY_UNAVAILABLE", retry_after_s=1.0)


def _reason_violations(reason: str) -> list[Violation]:
    if reason.strip() and len(reason) <= MAX_REASON_CHARACTERS:
        return []
    return [Violation("reason", f"{len(reason)} characters; 1 to {MAX_REASON_CHARACTERS} are right")]


def _label(name: str, changes: list[LabelChange]) -> pb.Label:
    return pb.Label(name=name, changes=[_change(change) for change in reversed(changes[-MAX_CHANGES:])])


def _change(change: LabelChange) -> pb.LabelChange:
    message = pb.LabelChange(model_version=change.version, set_at=_moment(change.set_at_ms), reason=change.reason)
    if change.canary is not None:
        message.canary.CopyFrom(pb.Canary(model_version=change.canary.version, percent=change.canary.percent))
    return message


def _moment(epoch_ms: int) -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(datetime.fromtimestamp(epoch_ms / 1000, UTC))
    return moment
