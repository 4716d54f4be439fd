"""Requests of the Open Inference Protocol as HTTP bodies: everything has a default, keywords override."""

import base64
import json
import struct

from tests.app import onnx_factories
from tests.inference import NAME, PICTURES, pixels

URL = f"/v2/models/{NAME}/infer"
LENGTH = "Inference-Header-Content-Length"
SIDE = onnx_factories.SIDE
BASE64 = [base64.b64encode(data).decode() for data in PICTURES]


def encoded(data=None, **fields):
    data = BASE64 if data is None else data
    return {"name": "encoded", "datatype": "BYTES", "shape": [len(data)], "data": data, **fields}


def images(**fields):
    return {"name": "images", "datatype": "UINT8", "shape": list(pixels().shape), "data": pixels().tolist(), **fields}


def elements(*parts):
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def binary(document, *tails):
    head = json.dumps(document).encode()
    return {"content": head + b"".join(tails), "headers": {LENGTH: str(len(head))}}
