"""Everything of the protocol but inference: documents that HTTP and gRPC both give, and what is done to the memory."""

from collections.abc import Mapping
from typing import Any

from anyio import to_thread

from app.api.deps import State
from app.api.oip import messages
from app.artifact.precisions import FLOAT, Precision
from app.errors import Unavailable, Unsupported
from app.services import readiness, repository
from app.services.predictions import Found, Wanted


def find(
    state: State, project: str, name: str, version: str, domain: str | None = None, precision: Precision = FLOAT
) -> Found:
    """The version that is meant; an empty one is that which is served by default.

    Raises:
        BadRequest: the version is no number.
        NotFound: no such model, version or domain.
    """
    wanted = Wanted(name, messages.version_number(version), domain=domain, precision=precision)
    return state.lookup.find(project, wanted)


def check_ready(state: State) -> None:
    """Passes when predictions can be made.

    Raises:
        Unavailable: with what is missing.
    """
    checks = readiness.check_serving(state.probes, state.warm_up)
    missing = [f"{name}: {finding}" for name, finding in checks.items() if finding != "ok"]
    if missing:
        raise Unavailable("; ".join(missing))


async def check_model_ready(state: State, project: str, name: str, version: str) -> None:
    """Passes when the version has been tried here, whether or not it is in memory still; else it is loaded for it.

    Raises:
        BadRequest, NotFound: as `find`.
        NotReady: it does not say of its sample what it said when it was published.
    """
    found = await to_thread.run_sync(find, state, project, name, version)
    trials = state.engine.trials
    if not trials.passed(found.model):
        trials.check_lately(found.model)
        await _load(state, found)


def metadata(state: State, project: str, name: str, version: str) -> dict[str, Any]:
    """As `repository.metadata`."""
    found = find(state, project, name, version)
    with state.database.read() as session:
        return repository.metadata(session, project, name, found)


def config(state: State, project: str, name: str, version: str) -> dict[str, Any]:
    """As `repository.config`."""
    return repository.config(name, find(state, project, name, version))


def statistics(state: State, project: str, name: str | None = None, version: str = "") -> dict[str, Any]:
    """As `repository.statistics`."""
    number = messages.version_number(version)
    with state.database.read() as session:
        return repository.statistics(session, project, state.statistics.total(), name, number)


def index(state: State, project: str, only_ready: bool = False) -> list[dict[str, str]]:
    """As `repository.index`, of all versions or of those that are ready."""
    with state.database.read() as session:
        rows = repository.index(session, project, state.opened, state.engine)
    return [row for row in rows if row["state"] == repository.READY or not only_ready]


async def load(state: State, project: str, name: str, parameters: Mapping[str, Any]) -> None:
    """Loads the version that is served by default.

    Raises:
        Unsupported: the client sends a configuration or files.
        NotFound: no such model.
    """
    if parameters:
        raise Unsupported(
            f"expected no parameters of a load; found {', '.join(sorted(parameters))[:200]}; models are published by "
            "jobs, see POST /api/v1/jobs"
        )
    await _load(state, await to_thread.run_sync(find, state, project, name, ""))


async def _load(state: State, found: Found) -> None:
    """In one of few threads: whoever waits for a load takes none from the calls that are answered meanwhile."""
    await to_thread.run_sync(state.engine.load, found.model, limiter=state.loaders)


def unload(state: State, project: str, name: str) -> None:
    """As `repository.unload`."""
    with state.database.read() as session:
        repository.unload(session, project, name, state.lookup, state.engine)
