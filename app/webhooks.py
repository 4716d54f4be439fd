"""What both processes agree on about webhooks: types of events, secrets and signatures.

The wire format is Standard Webhooks 1.0 (https://www.standardwebhooks.com): headers `webhook-id`, `webhook-timestamp`
and `webhook-signature`, a secret `whsec_` + base64, and a body `{"type", "timestamp", "data"}`.
"""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, get_args

EventType = Literal[
    "job.started",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
    "dataset.ready",
    "dataset.invalid",
    "model.version_published",
    "model.alias_moved",
]
EVENTS: tuple[EventType, ...] = get_args(EventType)
# Sent when somebody asks for it, to one receiver, whatever that one listens to.
TEST = "webhook.test"
PREFIX = "whsec_"
SECRET_BYTES = 32


def new_secret() -> str:
    """A secret that nobody can guess."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def body(event_id: str, kind: str, at: datetime, data: dict[str, Any]) -> str:
    """What is sent, byte for byte at every attempt; ASCII, so that every database holds it."""
    return json.dumps({"id": event_id, "type": kind, "timestamp": at.isoformat(), "data": data}, separators=(",", ":"))


def headers(event_id: str, at: datetime, content: bytes, keys: Sequence[str]) -> dict[str, str]:
    """The headers that prove where a body comes from and when.

    Args:
        event_id: the same at every attempt, so that a receiver knows what it has seen.
        at: of this attempt; receivers refuse what is older than some minutes.
        content: the body.
        keys: secrets that are valid at the moment, one signature each: two while one takes the other's place.
    """
    seconds = str(int(at.timestamp()))
    signed = f"{event_id}.{seconds}.".encode() + content
    return {
        "webhook-id": event_id,
        "webhook-timestamp": seconds,
        "webhook-signature": " ".join(_sign(key, signed) for key in keys),
    }


def _sign(key: str, signed: bytes) -> str:
    digest = hmac.new(base64.b64decode(key.removeprefix(PREFIX)), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"
