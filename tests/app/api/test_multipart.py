"""The form reader against forms whose content is known, cut into pieces at every place."""

import asyncio
import hashlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from app.api import multipart
from app.api.large import Limit
from app.errors import BadRequest, TooLarge, UnsupportedMediaType

BOUNDARY = "graft-boundary"
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters='"\\%'), min_size=1)
# Bodies that look like the form's own marks are the ones that break readers.
MARKS = [b"\r\n", b"--", b"\r\n--", f"--{BOUNDARY}"[:-1].encode(), f"\r\n--{BOUNDARY}x"[:-2].encode(), b"\x00", b"\xff"]
BODIES = st.lists(st.one_of(st.binary(max_size=20), st.sampled_from(MARKS)), max_size=6).map(b"".join)
PARTS = st.lists(st.tuples(NAMES, st.one_of(st.none(), NAMES), BODIES), min_size=1, max_size=5)


def encode(parts, end=True):
    out = b""
    for name, filename, body in parts:
        disposition = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename is not None else "")
        out += f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + body + b"\r\n"
    return out + f"--{BOUNDARY}--\r\n".encode() if end else out


def request(chunks, content_type=f"multipart/form-data; boundary={BOUNDARY}"):
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    waiting = iter(messages)

    async def receive():
        return next(waiting)

    headers = [(b"content-type", content_type.encode())] if content_type else []
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def read(chunks, max_bytes=10**9, file_to=None, **options):
    return asyncio.run(multipart.read(request(chunks, **options), Limit(max_bytes), file_to))


def cut(body, places):
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


@settings(max_examples=150, deadline=None)
@given(parts=PARTS, places=st.lists(st.integers(0, 10_000), max_size=8))
def test_any_form_cut_anywhere(parts, places):
    found = read(cut(encode(parts), places))
    assert [(part.name, part.filename, bytes(part.body)) for part in found] == parts
    assert [part.size_bytes for part in found] == [len(body) for *_, body in parts]


def test_every_single_cut(tmp_path):
    body = b"a\r\n--graft-boundar\r\n--" + bytes(range(256))
    parts = [("name", None, b"colours"), ("file", "a.zip", body), ("seed", None, b"3")]
    whole = encode(parts)
    for place in range(len(whole) + 1):
        found = read([whole[:place], whole[place:]], file_to=tmp_path / "upload")
        assert [(part.name, part.filename) for part in found] == [part[:2] for part in parts]
        assert [bytes(part.body) for part in found] == [b"colours", b"", b"3"]
        assert (tmp_path / "upload").read_bytes() == body
        assert found[1].sha256 == hashlib.sha256(body).hexdigest()
        assert found[1].size_bytes == len(body)


def test_byte_by_byte():
    parts = [("file", "a", b"\r\n--x"), ("file", "b", b"")]
    found = read([bytes([byte]) for byte in encode(parts)])
    assert [(part.filename, bytes(part.body)) for part in found] == [("a", b"\r\n--x"), ("b", b"")]


@pytest.mark.parametrize("end", range(1, 70, 4))
def test_broken_off_is_refused_wherever(tmp_path, end):
    whole = encode([("file", "a.zip", b"0123456789")])
    with pytest.raises(BadRequest, match="expected") as caught:
        read([whole[: len(whole) - 2 - end]], file_to=tmp_path / "upload")
    assert caught.value.code == "bad_request"


@pytest.mark.parametrize("content_type", ["", "text/plain; boundary=a", "application/json"])
def test_other_bodies_are_refused(content_type):
    with pytest.raises(UnsupportedMediaType, match="expected a body of content type multipart/form-data"):
        read([b"x"], content_type=content_type)


@pytest.mark.parametrize("size", [257, 5000])
def test_a_boundary_that_is_too_long_is_refused(size):
    with pytest.raises(BadRequest, match="well-formed"):
        read([b"x"], content_type=f"multipart/form-data; boundary={'x' * size}")


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_form_without_a_boundary_is_refused(content_type):
    with pytest.raises(BadRequest, match="boundary"):
        read([b"x"], content_type=content_type)


def test_another_boundary_than_announced():
    with pytest.raises(BadRequest):
        read([encode([("a", None, b"b")])], content_type="multipart/form-data; boundary=other")


def test_empty_body():
    with pytest.raises(BadRequest):
        read([b""])


def test_part_without_a_name():
    body = f"--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode()
    with pytest.raises(BadRequest, match="name"):
        read([body])


def test_two_files_where_one_is_expected(tmp_path):
    body = encode([("file", "a", b"1"), ("file", "b", b"2")])
    assert len(read([body])) == 2
    with pytest.raises(BadRequest, match="one file"):
        read([body], file_to=tmp_path / "upload")


def test_body_over_the_limit_is_refused_before_it_was_read(tmp_path):
    whole = encode([("file", "a", bytes(10_000))])
    taken = []

    def chunks():
        for chunk in cut(whole, range(0, len(whole), 100)):
            taken.append(len(chunk))
            yield chunk

    waiting = chunks()

    async def receive():
        return {"type": "http.request", "body": next(waiting), "more_body": True}

    headers = [(b"content-type", f"multipart/form-data; boundary={BOUNDARY}".encode())]
    streamed = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    with pytest.raises(TooLarge, match="at most 1000 bytes"):
        asyncio.run(multipart.read(streamed, Limit(1000), tmp_path / "upload"))
    assert 1000 < sum(taken) < 1200
    assert len(read([whole], max_bytes=len(whole))) == 1
    with pytest.raises(TooLarge):
        read([whole], max_bytes=len(whole) - 1)


def test_large_field_and_many_parts():
    limit = multipart.MAX_FIELD_BYTES
    assert len(read([encode([("a", None, bytes(limit))])])[0].body) == limit
    with pytest.raises(TooLarge, match="'a'"):
        read([encode([("a", None, bytes(limit + 1))])])
    # Together they are bounded as well: a thousand of that size would take a gigabyte.
    several = multipart.MAX_TEXT_BYTES // limit
    assert len(read([encode([("a", None, bytes(limit))] * several)])) == several
    with pytest.raises(TooLarge, match="together"):
        read([encode([("a", None, bytes(limit))] * (several + 1))])
    with pytest.raises(BadRequest, match="1000 parts"):
        read([encode([("a", None, b"")] * 1001)])


def test_large_file_is_written_as_it_comes(tmp_path):
    body = bytes(range(256)) * (3 * multipart.WRITE_BYTES // 256) + b"end"
    whole = encode([("name", None, b"n"), ("file", "a", body)])
    found = read(cut(whole, range(0, len(whole), 65_536)), file_to=tmp_path / "upload")
    assert (tmp_path / "upload").read_bytes() == body
    assert found[1].sha256 == hashlib.sha256(body).hexdigest()
    assert bytes(found[1].body) == b""


def test_field_that_is_no_text():
    (part,) = read([encode([("name", None, b"\xff\xfe")])])
    with pytest.raises(BadRequest, match="UTF-8"):
        _ = part.text


def test_landing_leaves_nothing(tmp_path):
    folder = tmp_path / "new" / "scratch"
    with multipart.landing(folder) as path:
        path.write_bytes(b"x")

    def fails():
        with multipart.landing(folder) as path:
            path.write_bytes(b"x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    with multipart.landing(folder):
        pass
    assert list(folder.iterdir()) == []
