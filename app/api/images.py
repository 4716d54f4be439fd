"""The images of a request, whichever way they come: multipart `file` (repeated), a raw body, JSON (base64 or URLs)."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

from anyio import to_thread
from fastapi import Request
from pydantic import BaseModel, Field, model_validator

from app.api import held, large, multipart
from app.api.deps import State
from app.api.forms import checked_json, from_json, media_type
from app.api.held import Hold
from app.bodies import BODY
from app.errors import BadRequest, TooLarge, Unprocessable

T = TypeVar("T")

ACCEPTED = ("multipart/form-data", "application/json", "image/*", "application/octet-stream")
# The event loop takes 7 ms for each megabyte of JSON.
LARGE_BYTES = 2**17
# Of an address with very many commas, and of what is not an image.
FEW_VALUES = 10_000
# Where a body has them.
IMAGES = "/body/images"
FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}


class ImageIn(BaseModel):
    """One image: its bytes, or where they are."""

    model_config = BODY

    b64: str | None = Field(None, description="The file's bytes in base64.")
    url: str | None = Field(None, max_length=4096, description="Where they are, at a host of GRAFT_IMAGE_HOSTS.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.b64 is None) == (self.url is None):
            raise ValueError("expected either `b64` or `url`")
        return self


class ImagesIn(BaseModel):
    """The JSON form of a request."""

    model_config = BODY

    images: list[ImageIn] = Field(min_length=1)


def request_body(*lines: str) -> dict[str, Any]:
    """What the schema says of a body that is read by hand; `lines` are further types of text."""
    form = {"type": "object", "required": ["file"], "properties": {"file": FILES}}
    content: dict[str, Any] = {
        "multipart/form-data": {"schema": form},
        "application/json": {"schema": {"$ref": "#/components/schemas/ImagesIn"}},
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        **{kind: {"schema": {"type": "string"}} for kind in lines},
    }
    return {"requestBody": {"required": True, "content": content}}


async def read(request: Request, state: State) -> list[bytes]:
    """The images in their order.

    Raises:
        BadRequest: no image, or a broken form.
        TooLarge: the body is too large, or there are too many images.
        UnsupportedMediaType: the body is of another kind.
        Unprocessable: JSON of another shape, or no base64.
        BadImage: what a URL leads to.
        Overloaded: memory has no room for it.
    """
    limit = large.of_images(state.settings)
    kind = media_type(request, *ACCEPTED)
    if kind == "multipart/form-data":
        parts = await multipart.read(request, limit)
        images = [bytes(part.body) for part in parts if part.name == "file"]
        if not images:
            raise BadRequest(
                "expected images as form fields `file`; found none; send -F file=@photo.jpg", code="file_missing"
            )
    elif kind == "application/json":
        body = await multipart.whole(request, limit)
        wanted = await aside(len(body), lambda: checked_json(ImagesIn, from_json("body", body, most_values(state))))
        check_number(wanted.images, state)
        images = await given(wanted.images, state, held.of(request.scope))
    else:
        images = [await multipart.whole(request, limit)]
    check_number(images, state)
    return images


def most_values(state: State) -> int:
    """Values that JSON with images may have: two for each image, and as much again for what is wrong with them."""
    return 4 * state.settings.max_predict_images + FEW_VALUES


def check_number(images: Sequence[object], state: State) -> None:
    """Refuses more images than one request may bring.

    Raises:
        TooLarge: code too_many_images.
    """
    most = state.settings.max_predict_images
    if len(images) > most:
        raise TooLarge(
            f"expected at most {most} images; found {len(images)}; send less at once", code="too_many_images"
        )


async def given(
    images: Sequence[ImageIn], state: State, hold: Hold, inside: str = IMAGES, first: int = 0
) -> list[bytes]:
    """The bytes of each image, fetched where they are not sent.

    Args:
        images: as the client wrote them.
        state: of the process.
        hold: of the request, or of the line; it takes what is fetched.
        inside: pointer to what holds them in the request.
        first: place that the first of them has there.

    Raises:
        Unprocessable: one is not base64; with a pointer to it.
        BadImage, TooLarge, Overloaded: as `Remote.fetch`.
    """
    size = sum(len(image.b64) for image in images if image.b64 is not None)
    found = await aside(
        size, lambda: [_decoded(image, f"{inside}/{place}") for place, image in enumerate(images, first)]
    )
    elsewhere = [index for index, image in enumerate(images) if image.url is not None]
    if elsewhere:
        fetched = await state.remote.fetch({index: str(images[index].url) for index in elsewhere}, hold.take)
        for index, data in fetched.items():
            found[index] = data
    return found


async def aside(size: int, read: Callable[[], T]) -> T:
    """What is read of a text of so many bytes; of a large one in a thread, since others are answered meanwhile."""
    return read() if size < LARGE_BYTES else await to_thread.run_sync(read)


def _decoded(image: ImageIn, pointer: str) -> bytes:
    try:
        return base64.b64decode(image.b64 or "", validate=True)
    except (binascii.Error, ValueError) as error:
        wrong = {"pointer": f"{pointer}/b64", "detail": f"No base64: {error}"}
        raise Unprocessable(
            f"expected base64 at {wrong['pointer']}; found {error}; send the file's bytes in base64, without a line "
            "break or a prefix",
            errors=[wrong],
        ) from error
