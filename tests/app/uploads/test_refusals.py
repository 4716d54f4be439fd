"""What a client is told whose headers say nothing: what was expected, what was found, what to send."""

import pytest

from tests.app.uploads.conftest import BODY
from tests.checks import problem


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "found Upload-Length none and Upload-Defer-Length none; send one of the two"),
        (
            {"Upload-Length": "0", "Upload-Defer-Length": "1"},
            "found Upload-Length 0 and Upload-Defer-Length 1; send one",
        ),
        ({"Upload-Length": "-1"}, "found -1; send it in digits alone"),
    ],
)
def test_what_is_said_of_a_size(service, headers, said):
    assert said in problem(service.request("POST", headers=headers), 400, "tus_header")["detail"]


@pytest.mark.parametrize(
    ("offset", "said"),
    [
        ({"Upload-Offset": "-1"}, "found -1; send it in digits alone"),
        ({}, "found none; ask with HEAD, and send what it"),
    ],
)
def test_what_is_said_of_an_offset(service, offset, said):
    upload_id = service.begin(3)
    refused = service.request("PATCH", f"/{upload_id}", content=b"abc", headers={"Content-Type": BODY, **offset})
    assert said in problem(refused, 400, "tus_header")["detail"]
    service.request("DELETE", f"/{upload_id}")
