"""Bodies beyond a limit, refused in the shape of every other error, and with the setting that says how much it is."""

from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems
from app.errors import TooLarge
from app.settings import Settings

# The framework refuses on its own, before a handler of errors is asked, and in words of its own.
_WORDS = (b"content-type", b"text/plain; charset=utf-8")


@dataclass(frozen=True)
class Limit:
    """How much a body may bring.

    Args:
        num_bytes: at most.
        setting: that says so; empty where none does.
    """

    num_bytes: int
    setting: str = ""

    def refusal(self) -> TooLarge:
        """What is said of a larger one."""
        named = f" ({self.setting})" if self.setting else ""
        return TooLarge(f"expected a body of at most {self.num_bytes} bytes{named}; found more; send less at once")


def of_json(settings: Settings) -> Limit:
    """For every body that is no file and no image."""
    return Limit(settings.max_json_bytes, "GRAFT_MAX_JSON_BYTES")


def of_images(settings: Settings) -> Limit:
    """For what stays in memory until it is answered."""
    return Limit(settings.max_predict_bytes, "GRAFT_MAX_PREDICT_BYTES")


def of_files(settings: Settings) -> Limit:
    """For what goes to disk as it comes."""
    return Limit(settings.max_upload_bytes, "GRAFT_MAX_UPLOAD_BYTES")


class Large:
    """ASGI middleware: the framework's 413 as a problem document.

    Args:
        app: whose routes have a limit.
        limit: theirs.
    """

    def __init__(self, app: ASGIApp, limit: Limit) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes all other answers on."""
        replaced = False

        async def send_problem(message: Message) -> None:
            nonlocal replaced
            if replaced:
                return
            replaced = message.get("status") == TooLarge.status and _WORDS in message.get("headers", ())
            if not replaced:
                await send(message)
                return
            await problems.of_error(scope["path"], self._limit.refusal())(scope, receive, send)

        await self._app(scope, receive, send_problem)
