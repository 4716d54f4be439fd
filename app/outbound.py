"""Where this service may connect to on somebody's wish: places in URLs, hosts that are allowed, private addresses.

A URL that a stranger chose must not become a way into the network that the service stands in. Two rules serve two
needs: images are fetched from hosts that the operator names (`named`), webhooks go to anybody whose address is public
(`Guard`).
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PORTS = {"http": 80, "https": 443}
# Below it stand mail, shells and files: nothing that takes a POST, much that can be talked into something by one.
FIRST_FREE_PORT = 1024
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# What `is_global` calls global, or did in some version of Python: protocols of their own, tunnels to any IPv4 address,
# addresses of examples, and the metadata service of a cloud.
_SPECIAL = ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2001::/23", "2002::/16", "3fff::/20")
NOT_PUBLIC: tuple[Network, ...] = tuple(map(ipaddress.ip_network, _SPECIAL))
UNICAST = ipaddress.IPv6Network("2000::/3")
# Underscores are in no host's name by the standard, and in many a private network's.
LABEL = re.compile(r"(?=[a-z0-9_-]*[a-z0-9])(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
MOST_OF_A_NAME = 253


class Refused(Exception):
    """A place that may not be connected to; the message names no address that a name means."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL leads: `host` in lower case, without brackets."""

    scheme: str
    host: str
    port: int


class Resolve(Protocol):
    """Asks for the addresses of a name, as `socket.getaddrinfo` does."""

    def __call__(self, host: str, port: int, *, type: int) -> Iterable[tuple[object, ...]]:
        """Rows whose last member begins with the address."""


def place(url: str) -> Place:
    """Where a URL leads.

    Raises:
        ValueError: it is none of http or https, names no host, or one that nothing can ever lead to, or names a user,
            who is never sent.
    """
    if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        raise ValueError("characters that a URL does not have; write them percent-encoded, a host in punycode")
    parts = urlsplit(url)
    if parts.scheme not in PORTS:
        raise ValueError("another scheme than http or https")
    if "@" in parts.netloc:
        raise ValueError("a user or password")
    if not parts.hostname:
        raise ValueError("no host")
    host = parts.hostname.lower()
    if "[" in parts.netloc:
        _check_literal(parts.netloc, host)
    else:
        _check_name(host)
    port = PORTS[parts.scheme] if parts.port is None else parts.port
    return Place(parts.scheme, host, port)


def _check_literal(netloc: str, host: str) -> None:
    """Of an IPv6 address, and no other text in brackets; its zone would be this machine's."""
    before, _, rest = netloc.lower().partition(f"[{host}]")
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        address = None
    if before or (rest and not rest.startswith(":")) or address is None or address.scope_id is not None:
        raise ValueError("a host that is no IPv6 address in brackets")


def _check_name(host: str) -> None:
    """Of a name that DNS can have, with or without the dot at its end, or an IPv4 address in any spelling."""
    name = host.removesuffix(".")
    labels = name.split(".")
    if NUMBER.fullmatch(labels[-1]):
        try:
            socket.inet_aton(host)
        except OSError as error:
            raise ValueError("a host that ends in a number and is no IPv4 address") from error
    elif len(name) > MOST_OF_A_NAME or not all(map(LABEL.fullmatch, labels)):
        raise ValueError(
            f"a host that is no name of DNS: at most {MOST_OF_A_NAME} characters, between its dots 1 to 63 letters, "
            "digits, hyphens and underscores that neither begin nor end with a hyphen, nor are all underscores"
        )


def entry(wanted: Place) -> str:
    """The shortest that names a place in a list of hosts: without a port where it is the scheme's own."""
    return _bare(wanted) if wanted.port == PORTS[wanted.scheme] else f"{_bare(wanted)}:{wanted.port}"


def _bare(wanted: Place) -> str:
    """The host as a URL has it: of an IPv6 address nobody could tell the port without brackets."""
    return f"[{wanted.host}]" if ":" in wanted.host else wanted.host


def named(found: Place, hosts: Iterable[str]) -> bool:
    """Whether hosts, each `name` for the scheme's own port or `name:port`, name the place; `[::1]:9000` is one."""
    names = {entry(found), f"{_bare(found)}:{found.port}"}
    return not names.isdisjoint(host.lower() for host in hosts)


def is_public(address: Address) -> bool:
    """Whether an address is one of the internet, and no machine, network or service of one's own."""
    inner = _inner(address)
    if isinstance(inner, ipaddress.IPv6Address) and inner not in UNICAST:
        return False
    return (
        inner.is_global
        and not (inner.is_multicast or inner.is_reserved or inner.is_unspecified)
        and not any(inner in network for network in NOT_PUBLIC if network.version == inner.version)
    )


class Guard:
    """Lets public addresses through, and what the operator allows all the same.

    Args:
        allowed: networks such as `10.0.0.0/8`, and hosts as in `named`, whose addresses are not looked at.
        resolve: asks for the addresses of a name.
    """

    def __init__(self, allowed: Iterable[str], resolve: Resolve = socket.getaddrinfo) -> None:
        entries = tuple(allowed)
        self._networks = [ipaddress.ip_network(entry) for entry in entries if "/" in entry]
        self._hosts = tuple(entry for entry in entries if "/" not in entry)
        self._resolve = resolve

    def check(self, wanted: Place) -> None:
        """Refuses what can be refused without asking for a name's addresses, which may change at any time.

        Raises:
            Refused: the port, or a host that is an address in any spelling, or names this machine.
        """
        if named(wanted, self._hosts):
            return
        if wanted.port < FIRST_FREE_PORT and wanted.port not in PORTS.values():
            raise Refused(f"port {wanted.port}; use 80, 443, or one from {FIRST_FREE_PORT} on")
        try:
            # 2130706433, 0x7f.1 and 127.1 are addresses too, for whoever connects.
            rows = socket.getaddrinfo(wanted.host, wanted.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            own = wanted.host.rstrip(".").rpartition(".")[2]
            # Where some network is allowed, whether this is one of its names is known when it is asked for.
            if own == "localhost" and not self._networks:
                raise Refused("a name of the machine itself") from None
            return
        self._look(rows)

    def addresses(self, wanted: Place) -> list[str]:
        """The addresses to connect to: all that the name has, once all of them were looked at.

        Whoever connects must take one of these and not ask for the name again: the next answer can be another one.

        Raises:
            Refused: see `check`; or one of the name's addresses is not public.
            OSError: the name has no address.
        """
        self.check(wanted)
        rows = list(self._resolve(wanted.host, wanted.port, type=socket.SOCK_STREAM))
        return _texts(rows) if named(wanted, self._hosts) else self._look(rows)

    def _look(self, rows: Iterable[tuple[object, ...]]) -> list[str]:
        texts = _texts(rows)
        for text in texts:
            address = ipaddress.ip_address(text)
            if not is_public(address) and not self._is_allowed(_inner(address)):
                raise Refused("an address that is not public (this machine, a private network, a cloud's metadata, …)")
        return texts

    def _is_allowed(self, address: Address) -> bool:
        return any(address in network for network in self._networks if network.version == address.version)


def _texts(rows: Iterable[tuple[object, ...]]) -> list[str]:
    found = [row[-1] for row in rows]
    return list(dict.fromkeys(str(place[0]) for place in found if isinstance(place, tuple)))


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, or the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
