"""Uploads whose parts the client puts into the object store itself, by presigned URLs; nothing of it in a folder."""

import hashlib
import hmac
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
from botocore.exceptions import ClientError

from app.inbox import Held, open_inbox
from app.inbox.s3 import S3Inbox
from app.services import uploads
from app.services.upload_leases import Lease
from tests.app.uploads.conftest import DATA, desk
from tests.checks import problem


def put_parts(service, begun):
    done = []
    for part in begun["parts"]["data"]:
        # Version 2, which is what comes without asking, newer buckets refuse.
        assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in part["url"]
        start = (part["number"] - 1) * begun["part_bytes"]
        answer = httpx.put(part["url"], content=DATA[start : start + part["size_bytes"]], trust_env=False)
        assert answer.status_code == 200, answer.text
        done.append({"number": part["number"], "etag": answer.headers["ETag"]})
    return done


def test_parts_go_to_the_object_store(service):
    wish = {"via": "s3", "size_bytes": len(DATA), "part_bytes": 5 * 2**20, "filename": "a.zip"}
    begun = service.request("POST", json=wish)
    if not isinstance(service.state.inbox, S3Inbox):
        problem(begun, 501, "unsupported")
        listed = service.request("GET").json()["data"]
        assert [one for one in listed if one["via"] != "tus"] == []
        return
    problem(service.request("POST", json={"via": "s3"}), 400, "bad_request")
    assert begun.status_code == 201, begun.text
    begun = {**begun.json(), "part_bytes": wish["part_bytes"]}
    upload_id = begun["id"]
    assert [part["size_bytes"] for part in begun["parts"]["data"]] == [5 * 2**20, 5 * 2**20, len(DATA) - 10 * 2**20]
    problem(service.patch(upload_id, 0, b"x"), 409, "upload_via")
    problem(service.complete(upload_id), 400, "parts_invalid")
    problem(service.complete(upload_id, parts=[]), 400, "parts_invalid")
    done = put_parts(service, begun)
    there = service.request("GET", f"/{upload_id}/parts").json()["data"]
    assert [part["etag"] for part in there] == [part["etag"] for part in done]
    wrong = [done[0], {"number": 2, "etag": '"0123"'}, done[2]]
    assert "part 2" in problem(service.complete(upload_id, parts=wrong), 400, "parts_invalid")["detail"]
    problem(service.complete(upload_id, parts=[*done, {"number": 4, "etag": "x"}]), 400, "parts_invalid")
    problem(service.complete(upload_id, "0" * 64, parts=done), 409, "sha256_mismatch")
    for state in ("received", "complete"):
        # There is nowhere to put another part, and the object store is not to blame.
        said = problem(service.request("GET", f"/{upload_id}/parts"), 409, "invalid_state")["detail"]
        assert f"{upload_id} {state}" in said
        assert service.complete(upload_id, parts=done).json()["state"] == "complete"
    assert service.state.storage.fetch(f"incoming/default/{upload_id}").read_bytes() == DATA
    service.change(upload_id, lambda row: setattr(row, "state", "used"))
    problem(service.request("GET", f"/{upload_id}/parts"), 409, "upload_used")
    left = service.state.inbox.client.list_multipart_uploads(Bucket=service.state.inbox.bucket)
    assert upload_id not in str(left.get("Uploads"))


def test_parts_go_to_where_clients_reach_the_object_store(service):
    """URLs are signed for that host, by its name; all else goes to where the service itself reaches it."""
    inbox = service.state.inbox
    if not isinstance(inbox, S3Inbox):
        return
    port = urlsplit(inbox.client.meta.endpoint_url).port
    # As the process opens it with GRAFT_OBJECTS_URL.
    outside = open_inbox(service.state.storage, f"http://localhost:{port}")
    wish = {"via": "s3", "size_bytes": len(DATA), "part_bytes": 5 * 2**20}
    begun = {**service.request("POST", json=wish).json(), "part_bytes": wish["part_bytes"]}
    held = Held(f"incoming/default/{begun['id']}", f"uploads/default/{begun['id']}", len(DATA), remote_id(begun))
    for part in begun["parts"]["data"]:
        assert urlsplit(part["url"]).hostname == "127.0.0.1"
        part["url"] = outside.part_url(held, part["number"], part["size_bytes"], 60)
        parts = urlsplit(part["url"])
        assert (parts.netloc, parts.path) == (f"localhost:{port}", f"/{inbox.bucket}/{inbox.storage.name(held.key)}")
    assert service.complete(begun["id"], parts=put_parts(service, begun)).json()["state"] == "complete"


def remote_id(begun):
    return parse_qs(urlsplit(begun["parts"]["data"][0]["url"]).query)["uploadId"][0]


def test_parts_that_were_put_together_unnoted_are_no_loss(service, request):
    """Killed between the object store's answer and the row: whoever completes it again sends the same parts."""
    if not isinstance(service.state.inbox, S3Inbox):
        return
    wish = {"via": "s3", "size_bytes": len(DATA), "part_bytes": 5 * 2**20}
    begun = {**service.request("POST", json=wish).json(), "part_bytes": wish["part_bytes"]}
    done = put_parts(service, begun)
    writer = Lease(desk(service), "default", begun["id"])
    row = writer.take(lambda _session, _row: None)
    held = replace(uploads.held(row), size_bytes=len(DATA))
    service.state.inbox.assemble(held, service.state.inbox.parts(held), writer)
    writer.release()
    assert service.request("GET", f"/{begun['id']}").json()["state"] == "receiving"
    assert service.request("GET", f"/{begun['id']}/parts").status_code == 200

    def as_real_stores_do(params, **_):
        """S3 and MinIO call no parts malformed before they look for the upload; this one does not."""
        if not params["MultipartUpload"]["Parts"]:
            raise ClientError({"Error": {"Code": "MalformedXML"}}, "CompleteMultipartUpload")

    hooks, name = service.state.inbox.client.meta.events, "provide-client-params.s3.CompleteMultipartUpload"
    hooks.register(name, as_real_stores_do)
    request.addfinalizer(lambda: hooks.unregister(name, as_real_stores_do))
    problem(service.complete(begun["id"], "0" * 64, parts=done), 409, "sha256_mismatch")
    assert service.complete(begun["id"], parts=done).json()["state"] == "complete"
    assert service.state.storage.fetch(f"incoming/default/{begun['id']}").read_bytes() == DATA


def test_urls_of_parts_end_with_the_upload(service):
    if not isinstance(service.state.inbox, S3Inbox):
        return
    begun = service.request("POST", json={"via": "s3", "size_bytes": 10}).json()
    assert begun["parts"]["urls_expire_at"] <= begun["expires_at"]
    service.change(begun["id"], lambda row: setattr(row, "expires_at", row.created_at + timedelta(seconds=600)))
    again = service.request("GET", f"/{begun['id']}/parts").json()
    assert again["urls_expire_at"] <= service.request("GET", f"/{begun['id']}").json()["expires_at"]
    seconds = int(parse_qs(urlsplit(again["data"][0]["url"]).query)["X-Amz-Expires"][0])
    assert 500 < seconds <= 600
    assert service.request("DELETE", f"/{begun['id']}").status_code == 204


def test_a_part_has_the_length_that_it_is_to_have(service):
    if not isinstance(service.state.inbox, S3Inbox):
        return
    wish = {"via": "s3", "size_bytes": len(DATA), "part_bytes": 5 * 2**20}
    begun = {**service.request("POST", json=wish).json(), "part_bytes": wish["part_bytes"]}
    done, last = put_parts(service, begun), begun["parts"]["data"][-1]
    for part in begun["parts"]["data"]:
        signed = parse_qs(urlsplit(part["url"]).query)["X-Amz-SignedHeaders"]
        assert signed == ["content-length;host"]
    # This object store looks at no signature; then it is the completion that refuses, and nothing is put together.
    longer = httpx.put(last["url"], content=DATA, trust_env=False)
    done[-1]["etag"] = longer.headers["ETag"]
    said = problem(service.complete(begun["id"], parts=done), 400, "parts_invalid")["detail"]
    assert f"with {last['size_bytes']} bytes" in said
    assert f"found {len(DATA)} bytes" in said
    assert service.request("GET", f"/{begun['id']}").json()["state"] == "receiving"
    assert service.state.storage.stat(f"incoming/default/{begun['id']}") is None
    assert service.request("DELETE", f"/{begun['id']}").status_code == 204


def signature(url, length, secret="test"):
    """What S3 would compute of such a request (AWS Signature Version 4, with the signature in the query)."""
    parts = urlsplit(url)
    query = sorted(item for item in parts.query.split("&") if not item.startswith("X-Amz-Signature="))
    given = {name: values[0] for name, values in parse_qs(parts.query).items()}
    headers = f"content-length:{length}\nhost:{parts.netloc}\n"
    request = ["PUT", parts.path, "&".join(query), headers, given["X-Amz-SignedHeaders"], "UNSIGNED-PAYLOAD"]
    scope = given["X-Amz-Credential"].split("/")[1:]
    digest = hashlib.sha256("\n".join(request).encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for step in (*scope, "\n".join(["AWS4-HMAC-SHA256", given["X-Amz-Date"], "/".join(scope), digest])):
        key = hmac.digest(key, step.encode(), "sha256")
    return key.hex()


def test_a_url_is_signed_for_its_part_and_its_length_alone(service):
    """As a store that looks at signatures would: the one of these tests does not."""
    if not isinstance(service.state.inbox, S3Inbox):
        return
    wish = {"via": "s3", "size_bytes": len(DATA), "part_bytes": 5 * 2**20}
    begun = service.request("POST", json=wish).json()
    for part in begun["parts"]["data"]:
        url, length = part["url"], part["size_bytes"]
        signed = parse_qs(urlsplit(url).query)["X-Amz-Signature"][0]
        assert signature(url, length) == signed
        others = (
            signature(url, length + 1),
            signature(url.replace(f"partNumber={part['number']}", "partNumber=9"), length),
            signature(url.replace(begun["id"], "up_another"), length),
            signature(url.replace("X-Amz-Expires=", "X-Amz-Expires=9"), length),
            signature(url, length, "guessed"),
        )
        assert signed not in others
        assert len(set(others)) == len(others)
    assert service.request("DELETE", f"/{begun['id']}").status_code == 204


def test_parts_of_an_upload_that_is_given_up_are_ended(service):
    if not isinstance(service.state.inbox, S3Inbox):
        upload_id = service.begin(3)
        problem(service.request("GET", f"/{upload_id}/parts"), 409, "upload_via")
        return
    wish = {"via": "s3", "size_bytes": len(DATA), "part_bytes": 5 * 2**20}
    begun = {**service.request("POST", json=wish).json(), "part_bytes": wish["part_bytes"]}
    put_parts(service, begun)
    assert service.request("DELETE", f"/{begun['id']}").status_code == 204
    left = service.state.inbox.client.list_multipart_uploads(Bucket=service.state.inbox.bucket)
    assert begun["id"] not in str(left.get("Uploads"))
