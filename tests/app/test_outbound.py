"""Where the service may connect to: every spelling of a place that is not public is refused."""

import ipaddress
import socket

import pytest

from app.outbound import Guard, Place, Refused, entry, is_public, named, place

PRIVATE = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1", "198.18.0.1", "224.0.0.1",
    "239.1.1.1", "240.0.0.1", "255.255.255.255", "168.63.129.16", "192.88.99.1", "::", "::1", "::ffff:127.0.0.1",
    "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254",
    "ff02::1", "2001:db8::1", "2002:7f00:1::", "2001:0:7f00:1::1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1",
    "100::1", "3fff::1", "4000::1",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1", "8.8.8.8", "172.32.0.1", "192.167.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]  # fmt: skip
MACHINE = [
    "2130706433", "0x7f000001", "017700000001", "127.1", "0x7f.1", "0", "localhost", "LOCALHOST.", "a.localhost",
]  # fmt: skip
NOWHERE = [
    "-a.example", "a-.example", "a.-b.example", "_", "_.example", "a.__.example", "a..example", ".a.example", ".", "..",
    "a.example..", "%61.example", "a%20b.example", "%00", "a*b.example", "*.example", "a,b.example", "a;b.example", "!",
    "a$.example", "a'b.example", "a~.example", "xn--.example", f"{'a' * 64}.example", ".".join(["a" * 63] * 4),
    "1.2.3.4.5", "1.1.1.1.", "999.1.1.1", "256.256.256.256", "0x1ffffffff", "4294967296", "a.123", "a.0x7f", "08.1.1.1",
    "0x.1", "[v1.a]", "[fe80::1%25eth0]", "[::1%lo]", "[::1%25lo]", "a[::1]b.example", "[::1]a",
]  # fmt: skip
SOMEWHERE = [
    "a.example.", "my_receiver", "_a._tcp.example", "a--b.example", "xn--e1afmkfd.xn--p1ai", "1a.2b", "123.example",
    "A.B", "0x7f.example", f"{'a' * 63}.example", ".".join(["a" * 63] * 3 + ["b" * 61]), "1.1", "[2606:4700::1111]",
    "[::FFFF:8.8.8.8]",
]  # fmt: skip
PORTS = {80: True, 443: True, 1024: True, 65535: True, 22: False, 25: False}


def names(**addresses):
    """A name server with these answers; each one's list of answers is given in turn, the last for ever."""

    def resolve(host, port, *, type):
        given = addresses[host]
        answer = given.pop(0) if len(given) > 1 else given[0]
        return [(socket.AF_INET, type, 0, "", (text, port)) for text in answer]

    return resolve


@pytest.mark.parametrize("text", PRIVATE)
def test_private_address_is_refused(text):
    assert not is_public(ipaddress.ip_address(text))
    shown = f"[{text}]" if ":" in text else text
    for url in (f"http://{shown}/", f"https://{shown}:8443/a?b"):
        with pytest.raises(Refused, match="not public"):
            Guard(()).check(place(url))


@pytest.mark.parametrize("text", PUBLIC)
def test_public_address_is_let_through(text):
    assert is_public(ipaddress.ip_address(text))
    shown = f"[{text}]" if ":" in text else text
    Guard(()).check(place(f"http://{shown}/"))


@pytest.mark.parametrize("host", MACHINE)
def test_other_spellings_of_this_machine_are_refused(host):
    with pytest.raises(Refused):
        Guard(()).check(place(f"http://{host}/"))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example/", "file:///etc/passwd", "gopher://a.example/", "//a.example/", "a.example", "", "http://",
        "http:///a",
        "http://me@a.example/", "http://me:secret@a.example/", "http://@a.example/", "http://a.example:99999/",
        "http://a.example:x/", "http://[::1/", "http://a.example\\@b.example/", "http://a.example/a b",
        "http://a.exam\nple/", "http://[a]/", "http://[1.1.1.1]/", "http://[]/",
        "http://a.example/\0", "http://\u2460.example/", "javascript:alert(1)",
    ],
)  # fmt: skip
def test_what_is_no_place_is_refused(url):
    with pytest.raises(ValueError, match=r".+"):
        place(url)


@pytest.mark.parametrize("host", NOWHERE)
@pytest.mark.parametrize("shape", ["http://{}/", "https://{}:8443/a?b", "http://{}"])
def test_host_that_nothing_can_lead_to_is_refused(host, shape):
    with pytest.raises(ValueError, match="a host that"):
        place(shape.format(host))


@pytest.mark.parametrize("host", SOMEWHERE)
def test_odd_name_of_a_host_is_let_through(host):
    assert place(f"http://{host}/") == Place("http", host.lower().strip("[]"), 80)
    assert place(f"http://{host}:8080/").port == 8080


@pytest.mark.parametrize(("port", "fine"), PORTS.items())
def test_ports_of_other_services_are_refused(port, fine):
    wanted = place(f"http://a.example:{port}/")
    if fine:
        Guard(()).check(wanted)
    else:
        with pytest.raises(Refused, match=f"port {port}"):
            Guard(()).check(wanted)


def test_port_zero_is_no_default():
    assert place("http://a.example:0/").port == 0
    with pytest.raises(Refused, match="port 0"):
        Guard(()).check(place("http://a.example:0/"))


def test_every_address_of_a_name_is_looked_at():
    resolve = names(good=[["1.1.1.1", "8.8.8.8", "1.1.1.1"]], mixed=[["1.1.1.1", "10.0.0.1"]], bad=[["127.0.0.1"]])
    guard = Guard((), resolve)
    assert guard.addresses(Place("http", "good", 80)) == ["1.1.1.1", "8.8.8.8"]
    for host in ("mixed", "bad"):
        with pytest.raises(Refused) as caught:
            guard.addresses(Place("http", host, 80))
        # What lies in the network is nobody's business.
        assert "10.0.0.1" not in str(caught.value)
        assert "127.0.0.1" not in str(caught.value)


def test_a_name_that_changes_is_asked_for_once_for_each_connection():
    guard = Guard((), names(rebinding=[["1.1.1.1"], ["127.0.0.1"]]))
    assert guard.addresses(Place("http", "rebinding", 80)) == ["1.1.1.1"]
    with pytest.raises(Refused):
        guard.addresses(Place("http", "rebinding", 80))


def test_what_is_allowed_is_let_through():
    resolve = names(**{"in.example": [["10.1.2.3"]], "out.example": [["10.200.0.1"]]})
    guard = Guard(("10.1.0.0/16", "out.example:8080", "fd00::/8"), resolve)
    assert guard.addresses(Place("http", "in.example", 80)) == ["10.1.2.3"]
    assert guard.addresses(Place("http", "out.example", 8080)) == ["10.200.0.1"]
    with pytest.raises(Refused):
        guard.addresses(Place("http", "out.example", 80))
    guard.check(place("http://[::ffff:10.1.2.3]/"))
    guard.check(place("http://[fd00::1]/"))
    for url in ("http://10.2.0.1/", "http://127.0.0.1/", "http://[::1]/"):
        with pytest.raises(Refused):
            guard.check(place(url))


def test_a_named_host_needs_its_port():
    hosts = ["A.example", "b.example:8080"]
    assert named(place("http://a.example/"), hosts)
    assert named(place("https://a.example:443/"), hosts)
    assert named(place("http://b.example:8080/"), hosts)
    for url in ("http://a.example:81/", "https://a.example:80/", "http://b.example/", "http://xa.example/"):
        assert not named(place(url), hosts)


def test_an_address_of_ipv6_is_named_as_in_a_url():
    """Without brackets nobody could tell a port from the end of an address."""
    with_port, without = place("http://[::1]:8777/"), place("http://[::1:8777]/")
    assert (entry(with_port), entry(without)) == ("[::1]:8777", "[::1:8777]")
    assert named(with_port, [entry(with_port)])
    assert named(without, ["[::1:8777]:80"])
    assert not named(with_port, [entry(without), "::1:8777"])
    assert not named(without, [entry(with_port), "::1:8777"])
