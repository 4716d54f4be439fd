"""Opens an untrusted checkpoint in a process of its own.

`python -m worker.prepare.checkpoint_child FILE RESULT MEMORY_BYTES SECONDS`. Nothing in the file is executed
(`weights_only=True`, or safetensors); `app.limited` says what the process is for. It writes the largest dictionary of
tensors it finds to RESULT as safetensors and prints one JSON line: `{"tensors": N}`, `{"error": WORDS}` where FILE is
to blame, or `{"unwritten": WORDS}` where there was no writing RESULT.
"""

import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from app import texts
from app.confinement import confine

MAX_DEPTH = 4
# How an archive begins, and a bare pickle of old.
PICKLES = (b"PK", b"\x80")
NEITHER = "it is no plain state dict in torch's or the safetensors format"


def states(content: object, depth: int = 0) -> Iterator[dict[str, Tensor]]:
    """Every dictionary in a checkpoint that holds tensors, at whatever key its trainer chose to put it."""
    if not isinstance(content, dict) or depth > MAX_DEPTH:
        return
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield tensors
    for value in content.values():
        yield from states(value, depth + 1)


def largest(content: object) -> dict[str, Tensor]:
    """The dictionary with the most elements: the weights, not the optimizer's few scalars.

    Raises:
        ValueError: when there is none.
    """
    found = list(states(content))
    if not found:
        raise ValueError(
            f"expected a dictionary of tensors, found {type(content).__name__}; save the model's state_dict()"
        )
    return max(found, key=lambda state: sum(tensor.numel() for tensor in state.values()))


def read(file: Path) -> object:
    """The file's content: safetensors by its look, else torch's own format."""
    with file.open("rb") as opened:
        head = opened.read(9)
    if head[8:9] == b"{":  # eight bytes of length, then JSON
        return load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def check(state: dict[str, Tensor], most_bytes: int) -> None:
    """Refuses weights that no network can use.

    Raises:
        ValueError: they would take more than `most_bytes` (a stride of 0 makes any number of one), or one is no number,
            or has a name that no database holds.
    """
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if num_bytes > most_bytes:
        raise ValueError(f"expected tensors of at most {most_bytes} bytes, found {num_bytes}; save them as they are")
    for name, tensor in state.items():
        if not texts.is_storable(name):
            raise ValueError(
                f"expected names of tensors that can be written down, found {name!a}; remove NUL characters and "
                "halves of surrogate pairs from it"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"expected finite weights, found NaN or infinity in {name!r}; train it again")


def _answer(file: Path, result: Path, memory_bytes: int) -> dict[str, Any]:
    try:
        state = largest(read(file))
        check(state, memory_bytes)
        # Tensors of one storage (tied weights) are written apart: safetensors refuses to guess.
        state = {name: value.detach().clone().contiguous() for name, value in state.items()}
    except (MemoryError, RuntimeError) as error:
        found = str(error).partition("\n")[0].partition(".")[0] or "out of memory"
        return {"error": f"it cannot be read ({found}); save the model's state_dict() with torch.save or safetensors"}
    except (pickle.UnpicklingError, EOFError, KeyError) as error:
        # Torch's own words explain how to run what is in the file, or are the number of an opcode.
        with file.open("rb") as opened:
            head = opened.read(16)
        if isinstance(error, pickle.UnpicklingError) and head.startswith(PICKLES):
            return {"error": "it is no plain state dict in torch's format: its pickle has more than tensors and values"}
        return {"error": f"{NEITHER}: it starts with {head!r}"}
    except SafetensorError as error:
        words = str(error).partition("\n")[0]
        return {"error": f"{NEITHER} ({words})"}
    except ValueError as error:
        return {"error": str(error)}
    return _written(state, result)


def _written(state: dict[str, Tensor], result: Path) -> dict[str, Any]:
    try:
        save_file(state, result)
    except (SafetensorError, OSError) as error:
        return {"unwritten": str(error)}
    return {"tensors": len(state)}


def main() -> None:
    """Reads, writes, answers."""
    file, result, memory_bytes, seconds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    confine(memory_bytes, seconds, file_bytes=memory_bytes)
    sys.stdout.write(json.dumps(_answer(file, result, memory_bytes)) + "\n")


if __name__ == "__main__":
    main()
