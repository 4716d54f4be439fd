"""Health for operators and orchestrators."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from app.api import callers
from app.api.deps import Context
from app.api.problems import RESPONSES
from app.services import readiness

router = APIRouter(tags=["health"], responses=RESPONSES)


class Ready(BaseModel):
    """What is there, and what is missing."""

    ready: bool
    missing: list[str]
    checks: dict[str, str]


@router.get("/livez", response_class=PlainTextResponse)
def livez() -> str:
    """The process answers."""
    return "ok"


@router.get("/readyz", response_model=Ready, responses={503: {"model": Ready, "description": "Something is missing"}})
def readyz(state: Context, response: Response) -> Any:
    """Database, broker, storage and a live worker; 503 names what is missing.

    A service that answers predictions alone needs neither a broker nor a worker, and is ready without.
    """
    if state.takes_jobs:
        checks = readiness.check(state.probes, state.bell, state.warm_up)
    else:
        checks = readiness.check_serving(state.probes, state.warm_up)
    missing = [name for name, finding in checks.items() if finding != "ok"]
    if missing:
        response.status_code = 503
    return Ready(ready=not missing, missing=missing, checks=checks)


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request, state: Context) -> PlainTextResponse:
    """Prometheus text: of the key's project, or of all where no key is asked for."""
    caller = callers.of(request.scope)
    project = None if caller.key_id is None else caller.project
    text = readiness.metrics(state.database, state.statistics, state.observation, project)
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")
