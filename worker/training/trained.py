"""A running training as named tensors and back, bit for bit: network, best state, optimiser."""

from typing import Any

import torch
from torch import Tensor

from worker.training.checks import Check, Look
from worker.training.loop import Progress, Trainer


def pack(trainer: Trainer) -> dict[str, Tensor]:
    """What is trained, its best state and the soup's others, every look, the optimiser's moments, torch's generator.

    The frozen part of a network is not in it: it comes from the backbone again.
    """
    tensors = {f"now/{name}": value.detach() for name, value in trainer.trainable.items()}
    tensors |= {f"best/{name}": value for name, value in trainer.best.items()}
    for place, state in enumerate(trainer.runners):
        tensors |= {f"runner-{place}/{name}": value for name, value in state.items()}
    for place, look in enumerate(trainer.looks):
        tensors |= {
            f"look-{place:06d}/predicted": torch.from_numpy(look.predicted_N),
            f"look-{place:06d}/loss": torch.from_numpy(look.loss_N),
        }
    tensors["generator"] = torch.get_rng_state()
    for index, state in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value for key, value in state.items() if value is not None}
    return tensors


def unpack(trainer: Trainer, tensors: dict[str, Tensor], progress: dict[str, Any]) -> Progress:
    """Brings network, best state and optimiser to where they were packed; the inverse of `asdict` for the rest."""
    with torch.no_grad():
        for name, parameter in trainer.trainable.items():
            parameter.copy_(tensors[f"now/{name}"])
            trainer.best[name] = tensors[f"best/{name}"].to(parameter.device)
    trainer.runners[:] = [
        {name: tensors[f"runner-{place}/{name}"].to(value.device) for name, value in trainer.trainable.items()}
        for place in range(len(progress["runners"]))
    ]
    looks = sorted({name.partition("/")[0] for name in tensors if name.startswith("look-")})
    trainer.looks[:] = [
        Look(tensors[f"{name}/predicted"].numpy().copy(), tensors[f"{name}/loss"].numpy().copy()) for name in looks
    ]
    torch.set_rng_state(tensors["generator"])
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            index, _, key = rest.partition("/")
            state.setdefault(int(index), {})[key] = value
    trainer.optimizer.load_state_dict({**trainer.optimizer.state_dict(), "state": state})
    runners = [Check(**check) for check in progress["runners"]]
    return Progress(**{**progress, "best": Check(**progress["best"]), "runners": runners})
