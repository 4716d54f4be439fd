"""Checkpoints that must be refused, made without torch: each with words of what its reader says.

A maker gets the path of a file that would be there if anything in the checkpoint was run.
"""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.app import onnx_factories

Make = Callable[[Path], bytes]


class Runs:
    """Unpickling it makes a file."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._canary,))


def pickled(canary: Path) -> bytes:
    """What `torch.save` wrote in the past."""
    return pickle.dumps({"state_dict": Runs(canary)})


def evaluated(canary: Path) -> bytes:
    """The same, by the name of a function that every Python has."""
    return b"cbuiltins\neval\n(V__import__('pathlib').Path(" + repr(str(canary)).encode() + b").touch()\ntR."


def archive(**records: bytes) -> bytes:
    """What `torch.save` writes now: a zip of records."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for name, data in {"version": b"3\n", **records}.items():
            target.writestr(f"archive/{name.replace('__', '/')}", data)
    return out.getvalue()


def deflated(num_bytes: int) -> bytes:
    """A record of zeros, packed."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("archive/version", b"3\n")
        target.writestr("archive/data.pkl", bytes(num_bytes))
    return out.getvalue()


def safetensors(header: Any, content: bytes = b"") -> bytes:
    """A file of that header, whether it fits or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def tensor(kind: str = "F32", shape: tuple[int, ...] = (2,), end: int = 8) -> dict[str, Any]:
    """One entry of a header."""
    return {"weight": {"dtype": kind, "shape": list(shape), "data_offsets": [0, end]}}


REFUSED: dict[str, tuple[Make, str]] = {
    "a pickle that runs": (pickled, "no plain state dict"),
    "a pickle that evaluates": (evaluated, "no plain state dict"),
    "an archive whose pickle runs": (lambda canary: archive(**{"data.pkl": pickled(canary)}), "no plain state dict"),
    "a program": (
        lambda canary: archive(**{"constants.pkl": pickled(canary), "code__a.py": b"import os"}), "cannot be read"),
    "an archive without a pickle": (lambda _: archive(), "cannot be read|no plain state dict"),
    "megabytes of zeros": (lambda _: deflated(50_000_000), "cannot be read|no plain state dict"),
    "a huge header": (lambda _: struct.pack("<Q", 2**62) + b'{"weight": ', "no plain state dict"),
    "a header of brackets": (lambda _: safetensors(b'{"a":' + b"[" * 200_000), "no plain state dict"),
    "a tensor of a terabyte": (
        lambda _: safetensors(tensor(shape=(2**38,), end=2**40), bytes(8)), "no plain state dict"),
    "a tensor outside its file": (lambda _: safetensors(tensor(end=800), bytes(8)), "no plain state dict"),
    "a tensor of nothing known": (lambda _: safetensors(tensor("EVIL"), bytes(8)), "no plain state dict"),
    "weights that are no numbers": (
        lambda _: safetensors(tensor(), struct.pack("<ff", 1.0, float("nan"))), "finite weights.*weight"),
    "a name with a NUL character": (
        lambda _: safetensors({"we\0ight": tensor()["weight"]}, bytes(8)), r"names of tensors.*'we\\x00ight'"),
    "an ONNX graph": (lambda _: onnx_factories.backbone_bytes(), "no plain state dict|cannot be read"),
    "a list": (lambda _: pickle.dumps([1, 2]), "."),
    "text": (lambda _: b"not a checkpoint at all", "no plain state dict.*starts with b'not a checkpoint"),
    "nothing": (lambda _: b"", "."),
}  # fmt: skip
