"""The real application behind a real server, in a thread of this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp

from app.api import connections
from app.api.connections import Connection
from app.api.deps import State
from app.main import create_app
from app.settings import Settings


@contextmanager
def application(settings: Settings, connection: type[Connection] = Connection) -> Iterator[tuple[str, State]]:
    """Its address and its state."""
    app = create_app(settings)
    with listening(app, connection) as address:
        yield address, app.state.graft


@contextmanager
def listening(app: ASGIApp, connection: type[Connection] = Connection) -> Iterator[str]:
    """The address of any application behind our server."""
    server = connections.server(app, "127.0.0.1", 0, connection)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
