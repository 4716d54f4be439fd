"""One POST to a stranger's receiver: real servers on loopback."""

import datetime
import ssl
import threading
import time
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from socket import AF_INET, create_server

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.db.base import now
from app.outbound import Guard
from tests.conftest import free_port
from tests.receivers import LOOPBACK, Reply, receiving
from worker.supervision.post import MAX_ANSWER_BYTES, post

ALLOWED = Guard((LOOPBACK,))
NAME = "receiver.example"


@pytest.fixture(scope="module")
def receiver():
    with receiving() as server:
        yield server


@pytest.fixture(autouse=True)
def _fresh(receiver):
    receiver.got.clear()


def send(url, guard=ALLOWED, seconds=10.0, context=None):
    return post(url, b'{"a":1}', {"webhook-id": "evt_1"}, guard, context or ssl.create_default_context(), seconds)


def to(*answers):
    """A name server that gives these answers one after the other."""
    given = [[(AF_INET, None, 0, "", (text, 0)) for text in answer] for answer in answers]
    return lambda host, port, *, type: given.pop(0)


def test_what_is_sent_arrives(receiver):
    receiver.replies = [Reply(201, {}, b"thanks")]
    answer = send(f"{receiver.url}?a=%20b#c")
    assert (answer.status, answer.error, answer.text, answer.retry_after_seconds) == (201, None, "thanks", None)
    assert 0 < answer.seconds < 10
    (got,) = receiver.got
    assert (got.path, got.body, got.headers["webhook-id"]) == ("/hook?a=%20b", b'{"a":1}', "evt_1")
    assert got.headers["host"] == f"127.0.0.1:{receiver.server_port}"


def test_a_redirect_is_not_followed(receiver):
    receiver.replies = [Reply(307, {"Location": f"{receiver.url}/other"})]
    assert send(receiver.url).status == 307
    assert len(receiver.got) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://2130706433:{port}/"])
def test_what_is_not_public_is_never_asked(receiver, url):
    answer = send(url.format(port=receiver.server_port), Guard(()))
    assert (answer.status, answer.error.startswith("expected a public address")) == (None, True)
    assert receiver.got == []


def test_a_name_that_means_this_machine_is_never_asked(receiver):
    url = f"http://{NAME}:{receiver.server_port}/"
    for answers in (["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["::ffff:127.0.0.1"]):
        answer = send(url, Guard((), to(answers)))
        assert "not public" in answer.error
    assert receiver.got == []


def test_a_name_that_changes_after_the_look_changes_nothing(receiver):
    """Rebinding: the second answer would lead here, and nobody asks for it."""
    closed = create_server(("127.0.0.2", 0))
    port = closed.getsockname()[1]
    closed.close()
    guard = Guard(("127.0.0.2/32",), to(["127.0.0.2"], ["127.0.0.1"]))
    answer = send(f"http://{NAME}:{port}/", guard)
    assert "ConnectError" in answer.error
    # What the name server says next is refused, not followed.
    assert "not public" in send(f"http://{NAME}:{receiver.server_port}/", guard).error
    assert receiver.got == []


def test_another_address_is_tried_and_the_name_stays(receiver):
    guard = Guard((LOOPBACK,), to(["127.0.0.2", "127.0.0.1"]))
    assert send(f"http://{NAME}:{receiver.server_port}/", guard).status == 204
    assert receiver.got[0].headers["host"] == f"{NAME}:{receiver.server_port}"


def test_proxies_of_the_environment_are_not_asked(receiver, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", receiver.url)
    monkeypatch.setenv("ALL_PROXY", receiver.url)
    answer = send(f"http://127.0.0.1:{free_port()}/")
    assert "ConnectError" in answer.error
    assert receiver.got == []


def test_a_receiver_that_does_not_answer_is_left(receiver):
    receiver.answering.clear()
    began = time.monotonic()
    answer = send(receiver.url, seconds=0.3)
    receiver.answering.set()
    assert answer.error == "expected an answer within 0.3 s; found none"
    assert time.monotonic() - began < 10


def test_a_receiver_that_answers_byte_by_byte_is_left():
    with create_server(("127.0.0.1", 0)) as server:

        def drip():
            connection, _ = server.accept()
            with connection:
                try:
                    for byte in b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 1000:
                        connection.sendall(bytes([byte]))
                        time.sleep(0.05)
                except OSError:
                    return

        threading.Thread(target=drip, daemon=True).start()
        answer = send(f"http://127.0.0.1:{server.getsockname()[1]}/", seconds=0.5)
    assert answer.error == "expected an answer within 0.5 s; found none"


def test_only_the_beginning_of_an_answer_is_kept(receiver):
    receiver.replies = [Reply(500, {}, b"a\0\xff" + b"b" * 10_000_000)]
    answer = send(receiver.url)
    assert answer.status == 500
    assert answer.text.startswith("a\ufffdbbb")
    assert len(answer.text) < MAX_ANSWER_BYTES


@pytest.mark.parametrize("said", [b"", b"no HTTP at all\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"])
def test_an_answer_that_is_none_is_told(said):
    with create_server(("127.0.0.1", 0)) as server:

        def speak():
            connection, _ = server.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(said)

        threading.Thread(target=speak, daemon=True).start()
        answer = send(f"http://127.0.0.1:{server.getsockname()[1]}/")
    assert answer.status is None
    assert answer.error.startswith("expected an answer; found ")


def test_a_name_without_an_address_is_told():
    assert "gaierror" in send("http://nobody.invalid/").error


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("0", 0), ("120", 120), ("soon", None), ("-5", None), ("9" * 50, 999_999_999), ("\xb2", None),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", None), ("Thu, 01 Jan 2026 00:00:00 +999999999999999", None),
    ],
)  # fmt: skip
def test_retry_after_in_seconds(receiver, said, seconds):
    receiver.replies = [Reply(503, {"Retry-After": said})]
    answer = send(receiver.url)
    assert (answer.status, answer.error, answer.retry_after_seconds) == (503, None, seconds)
    # Who took the event is asked nothing more.
    receiver.replies = [Reply(200, {"Retry-After": said})]
    assert send(receiver.url).retry_after_seconds is None


def test_retry_after_as_a_date(receiver):
    later = now() + datetime.timedelta(hours=1)
    receiver.replies = [Reply(503, {"Retry-After": format_datetime(later, usegmt=True)})]
    assert send(receiver.url).retry_after_seconds == pytest.approx(3600, abs=30)
    receiver.replies = [Reply(503, {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"})]
    assert send(receiver.url).retry_after_seconds == 0


@pytest.fixture
def certificate(tmp_path):
    """A certificate of `receiver.example` that signs itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now() - datetime.timedelta(days=1))
        .not_valid_after(now() + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "receiver.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def test_tls_goes_to_the_name_of_the_url(certificate):
    """The connection goes to an address; what is asked of the certificate, and what it is asked for, is the name."""
    asked, hosts = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            hosts.append(self.headers["Host"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(certificate)
    own.sni_callback = lambda _socket, name, _context: asked.append(name)
    known = ssl.create_default_context(cafile=certificate)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = own.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_port
        right = send(f"https://{NAME}:{port}/", Guard((LOOPBACK,), to(["127.0.0.1"])), context=known)
        wrong = send(f"https://other.example:{port}/", Guard((LOOPBACK,), to(["127.0.0.1"])), context=known)
        unknown = send(f"https://{NAME}:{port}/", Guard((LOOPBACK,), to(["127.0.0.1"])))
        server.shutdown()
    assert right.status == 204
    assert (asked[0], hosts) == (NAME, [f"{NAME}:{port}"])
    for answer in (wrong, unknown):
        assert "CERTIFICATE_VERIFY_FAILED" in answer.error
