"""From a request of the protocol to its answer, the same for HTTP and gRPC; each door waits for the engine itself."""

from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass

from anyio import to_thread

from app import log_lines
from app.api.deps import State
from app.api.oip import control, messages, tensors
from app.api.oip.messages import InferRequest, InferResponse
from app.artifact.precisions import FLOAT
from app.services import rollouts
from app.services.drift import Call
from app.services.predictions import Found
from app.serving.call import Images, Result

Read = Callable[[], InferRequest]
Wait = Callable[[Future[Result]], Awaitable[Result]]


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    request: InferRequest
    found: Found
    images: Images


async def infer(
    state: State, project: str, read: Read, wait: Wait, arrived: float, latest: float | None = None
) -> InferResponse:
    """Reads a request, has it computed, and puts the answer together.

    Args:
        state: of the process.
        project: whose models are meant.
        read: makes the request of what came over the wire; called in a thread, since large bodies take their time.
        wait: waits for the engine as long as the client does.
        arrived: when the request did, by `time.monotonic`.
        latest: when the client stops waiting, by the same clock, where the wire itself says so.

    Raises:
        BadRequest: the request is malformed, or does not fit the model.
        NotFound: no such model, version or domain.
        Unsupported: a part of the protocol that is not spoken.
        Overloaded, DeadlineExceeded: as the engine's.
    """
    prepared = await to_thread.run_sync(_prepare, state, project, read)
    request, found = prepared.request, prepared.found
    asked = messages.deadline(request.parameters, arrived)
    deadline = min((at for at in (asked, latest) if at is not None), default=None)
    name = request.id or log_lines.ids().request_id
    call = Call(found, prepared.images, None, messages.domain(request.parameters), name)
    future = state.engine.submit(found.model, prepared.images, deadline, project)
    try:
        result = await wait(state.observation.watch(call, state.statistics.watch(found.version_id, future)))
    finally:
        # As in `waiting`: an error that it has ended with holds this frame.
        del future
    rollouts.compare(state.engine, state.statistics, found, prepared.images, result)
    return InferResponse(
        model=request.model,
        version=str(found.version),
        id=request.id,
        parameters=_told(found),
        outputs=tensors.outputs(result, found.model.spec.labels, request.outputs),
    )


def _told(found: Found) -> dict[str, str]:
    """Who answered, where it is not what answers by default."""
    told = {"alignment": found.alignment} if found.alignment else {}
    return told if found.model.precision == FLOAT else {**told, "precision": found.model.precision}


def _prepare(state: State, project: str, read: Read) -> _Prepared:
    request = read()
    messages.check_id(request.id)
    domain = messages.domain(request.parameters)
    precision = messages.precision(request.parameters)
    found = control.find(state, project, request.model, request.version, domain, precision)
    # Against the version that is meant, as its metadata says, whoever answers.
    images = tensors.images(request.inputs, found.model.spec, state.settings.max_predict_images)
    tells_features = any(output.name == messages.FEATURES for output in request.outputs)
    return _Prepared(request, rollouts.chosen(found, images, tells_features=tells_features), images)
