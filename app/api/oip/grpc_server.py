"""The Open Inference Protocol over gRPC, in the process and on the event loop of the HTTP server.

A web page cannot reach it, unlike HTTP on loopback: browsers do not speak HTTP/2 without TLS, so nothing here checks
where a call comes from.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
from anyio import to_thread

from app import log_lines
from app.api import callers, oip_errors
from app.api.deps import State
from app.api.held import REFUSALS, Hold
from app.api.oip import control, grpc_errors, grpc_messages, grpc_streams, grpc_traced, infer, proto
from app.api.oip.proto import message
from app.api.scopes import GRPC_SCOPES, OPEN
from app.db.base import new_id
from app.errors import GraftError, NotFound, NotReady, Unavailable
from app.services import repository
from app.serving.call import Result
from app.tracing import Tracer

# As HTTP gives requests that are under way when the service stops.
GRACE_SECONDS = 3.0
# A message's fields beside the images.
OVERHEAD_BYTES = 64 * 1024
# At once, in one process: each may bring a message of the largest size, which gRPC reads before it is asked.
MAX_CALLS = 256

Handler = Callable[[str, Any, Any], Awaitable[Any]]
Metadata = Iterable[tuple[str, Any]] | None


@asynccontextmanager
async def serving(state: State) -> AsyncIterator[None]:
    """A server that answers as long as the block lasts.

    Raises:
        RuntimeError: the port cannot be listened on.
    """
    settings = state.settings
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    service = Service(state)
    server = grpc.aio.server(
        interceptors=[_Door(service)],
        maximum_concurrent_rpcs=MAX_CALLS,
        options=[
            ("grpc.max_receive_message_length", settings.max_predict_bytes + OVERHEAD_BYTES),
            ("grpc.max_send_message_length", -1),
            # Processes of one service share the port; two services would each get some of the other's calls.
            ("grpc.so_reuseport", int(settings.serve_processes > 1)),
        ],
    )
    server.add_generic_rpc_handlers((_handlers(service),))
    server.add_insecure_port(f"{host}:{settings.grpc_port}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(GRACE_SECONDS)


class Service:
    """The protocol's methods, by their names; each is told the caller's project, whose models it is about.

    Args:
        state: of the process.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    @property
    def tracer(self) -> Tracer | None:
        """Of the process."""
        return self._state.tracer

    async def allow(self, method: str, metadata: Metadata) -> None:
        """Looks at a call's key before anything of it is read; it does not count towards the project's rate.

        Raises:
            Unauthorized, Unavailable: as `Keyring.caller`.
            Forbidden: code scope_missing.
        """
        needed = GRPC_SCOPES.get(method, OPEN)
        if needed != OPEN:
            callers.check(await self._state.keyring.caller(_authorization(metadata)), needed, method)

    async def entered(self, method: str, context: Any) -> str:
        """The project of a call's key, which comes as HTTP's header does, in the metadata `authorization`.

        Raises:
            Unauthorized, Unavailable, TooMany: as `Keyring.admit`.
            Forbidden: code scope_missing.
        """
        needed = GRPC_SCOPES.get(method)
        if needed == OPEN:
            return callers.ANYBODY.project
        caller = await self._state.keyring.admit(_authorization(context.invocation_metadata()))
        callers.check(caller, needed, method)
        log_lines.bind(request_id=new_id("req"), project=caller.project)
        return caller.project

    async def ServerLive(self, _project: str, _request: Any, _context: Any) -> Any:
        """The process answers."""
        return message("ServerLiveResponse")(live=True)

    async def ServerReady(self, _project: str, _request: Any, _context: Any) -> Any:
        """Whether predictions can be made."""
        ready = await _is((Unavailable,), to_thread.run_sync(control.check_ready, self._state))
        return message("ServerReadyResponse")(ready=ready)

    async def ModelReady(self, project: str, request: Any, _context: Any) -> Any:
        """Whether there is such a model, and it says what it should of its stored sample."""
        asked = control.check_model_ready(self._state, project, request.name, request.version)
        ready = await _is((NotFound, NotReady), asked)
        return message("ModelReadyResponse")(ready=ready)

    async def ServerMetadata(self, _project: str, _request: Any, _context: Any) -> Any:
        """Who answers, and what it speaks."""
        return grpc_messages.of_document("ServerMetadataResponse", repository.server())

    async def ModelMetadata(self, project: str, request: Any, _context: Any) -> Any:
        """The tensors of a model."""
        found = await self._in_thread(control.metadata, project, request.name, request.version)
        return grpc_messages.of_document("ModelMetadataResponse", found)

    async def ModelConfig(self, project: str, request: Any, _context: Any) -> Any:
        """A model's configuration."""
        found = await self._in_thread(control.config, project, request.name, request.version)
        return grpc_messages.of_document("ModelConfigResponse", {"config": found})

    async def ModelStatistics(self, project: str, request: Any, _context: Any) -> Any:
        """Counts and times, of all models when none is named."""
        found = await self._in_thread(control.statistics, project, request.name or None, request.version)
        return grpc_messages.of_document("ModelStatisticsResponse", found)

    async def RepositoryIndex(self, project: str, request: Any, _context: Any) -> Any:
        """Every version of every model, or of those the ready ones."""
        found = await self._in_thread(control.index, project, request.ready)
        return grpc_messages.of_document("RepositoryIndexResponse", {"models": found})

    async def RepositoryModelLoad(self, project: str, request: Any, _context: Any) -> Any:
        """Brings a model into memory."""
        given = grpc_messages.parameters(request.parameters)
        await control.load(self._state, project, request.model_name, given)
        return message("RepositoryModelLoadResponse")()

    async def RepositoryModelUnload(self, project: str, request: Any, _context: Any) -> Any:
        """Takes a model out of memory."""
        await self._in_thread(control.unload, project, request.model_name)
        return message("RepositoryModelUnloadResponse")()

    async def ModelInfer(self, project: str, request: Any, context: Any) -> Any:
        """Classifies images; what the client no longer waits for is not computed."""
        try:
            return await self._answer(project, request, context)
        except GraftError as error:
            self._count(project, request.model_name, error)
            raise

    async def ModelStreamInfer(self, _requests: Any, context: Any) -> AsyncIterator[Any]:
        """Classifies requests as they come, and answers in their order; a bad one does not end the stream.

        The key is looked at for each again, since a stream may last longer than it.
        """
        answer = message("ModelStreamInferResponse")
        begun = grpc_streams.in_order(
            # The package's own iterator would keep each request until the next one comes.
            context.read,
            lambda: self.entered("ModelStreamInfer", context),
            lambda project, request, taken: self._answer(project, request, context, taken),
        )
        async with aclosing(begun):
            async for one in begun:
                outcome = one.task.result()
                if isinstance(outcome, GraftError):
                    self._count(one.project, one.model_name, outcome)
                    # The id says which request it was.
                    said = answer(error_message=outcome.detail, infer_response={"id": one.id})
                else:
                    said = answer(infer_response=outcome)
                # Each request has one answer, its last; clients that asked for empty final ones look at this.
                said.infer_response.parameters["triton_final_response"].bool_param = True
                yield said

    async def _answer(self, project: str, request: Any, context: Any, taken: Callable[[], None] = lambda: None) -> Any:
        """Computes a request's answer; `taken` is called once the engine has taken it on."""
        grpc_messages.check(request)
        arrived, left = time.monotonic(), context.time_remaining()
        latest = arrived + left if left is not None else None
        state, hold = self._state, Hold(self._state.held, project)

        async def wait(future: Future[Result]) -> Result:
            # A call that the client breaks off is cancelled here, and with it the engine's work.
            taken()
            try:
                return await asyncio.wrap_future(future)
            finally:
                # As in `waiting`: an error that it has ended with holds this frame.
                del future

        try:
            state.engine.check_room(state.lookup.backbones(project, request.model_name), project)
            hold.take(request.ByteSize())
            answer = await infer.infer(state, project, lambda: grpc_messages.read(request), wait, arrived, latest)
            return await to_thread.run_sync(grpc_messages.write, answer)
        finally:
            hold.close()

    def _count(self, project: str, model_name: str, error: GraftError) -> None:
        if error.status in REFUSALS:
            self._state.statistics.refused(project, model_name, error.code)

    async def _in_thread(self, function: Callable[..., Any], project: str, *arguments: Any) -> Any:
        return await to_thread.run_sync(function, self._state, project, *arguments)


async def _is(unless: tuple[type[GraftError], ...], passes: Awaitable[None]) -> bool:
    try:
        await passes
    except unless:
        return False
    return True


class _Door(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # the package has no types
    """Refuses a call without a key that holds: as a stream, of which nothing is read unless it is asked for."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """Passes on what may be read."""
        try:
            await self._service.allow(details.method.rpartition("/")[2], details.invocation_metadata)
        except Exception as error:
            told = grpc_errors.told(error)
        else:
            return await continuation(details)

        async def refuse(_requests: Any, context: Any) -> None:
            await grpc_errors.refuse(context, told)

        return grpc.stream_stream_rpc_method_handler(refuse)


def _authorization(metadata: Metadata) -> str:
    return next((value for key, value in metadata or () if key == "authorization"), "")


def _handlers(service: Service) -> Any:
    """What the server calls for each method of the compiled service.

    A unary request is read before its handler is called. Methods that anybody may call look at none, so they are
    handled as streams, whose messages stay where they are.
    """
    methods = {}
    for method in proto.methods():
        read, response = grpc_messages.reader(method.input_type.name), message(method.output_type.name)
        function = getattr(service, method.name)
        make = grpc.unary_unary_rpc_method_handler
        if method.client_streaming:
            make = grpc.stream_stream_rpc_method_handler
        elif GRPC_SCOPES[method.name] == OPEN:
            make = grpc.stream_unary_rpc_method_handler
        methods[method.name] = make(
            function if method.client_streaming else _guarded(service, method.name, function),
            read,
            response.SerializeToString,
        )
    return grpc.method_handlers_generic_handler(proto.SERVICE, methods)


def _guarded(service: Service, name: str, function: Handler) -> Callable[[Any, Any], Awaitable[Any]]:
    """The method behind its key, with its errors as statuses."""

    async def call(request: Any, context: Any) -> Any:
        with grpc_traced.traced(service.tracer, name, context) as span:
            try:
                project = await service.entered(name, context)
                span.of(project)
                grpc_messages.check(request)
                return await function(project, request, context)
            except Exception as error:
                told = grpc_errors.told(error)
            span.ended(oip_errors.grpc_code(told.status))
        # The call that is refused holds this frame until a collection.
        del request
        return await grpc_errors.refuse(context, told)

    return call
