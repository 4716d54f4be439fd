"""Keys for tests: made as the CLI makes them, sent as a client sends them."""

from contextlib import contextmanager
from typing import Any

from starlette.testclient import TestClient

from app.main import create_app
from app.services import keys
from app.settings import Settings


def key(state: Any, *scopes: str, project: str = "default", **fields: Any) -> keys.Made:
    """A new key; all scopes where none is named."""
    with state.database.write() as session:
        keys.open_project(session, project)
        return keys.create(session, project, "test", scopes or keys.SCOPES, fields.get("expires_at"))


def bearer(made: keys.Made) -> dict[str, str]:
    """Its header."""
    return {"Authorization": f"Bearer {made.secret}"}


@contextmanager
def keyed(settings: Settings) -> Any:
    """The application with keys on."""
    app = create_app(settings.model_copy(update={"require_keys": True}))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def filled(path: str, values: dict[str, str] | None = None) -> str:
    """The path with something in every place."""
    parts = [part[1:-1] if part.startswith("{") else None for part in path.split("/")]
    known = {"version": "1", **(values or {})}
    return "/".join(
        given if name is None else known.get(name, name) for name, given in zip(parts, path.split("/"), strict=True)
    )
