"""Pictures that are there more than once: equal bytes, or one picture under other bytes. No torch.

10 % of CIFAR-100's test images have a near-duplicate in its training set (arXiv 1902.00423). What counts as one picture
is decided in `worker.overlap.copies`.

Ingestion has grouped everything within 4 bits (`data/duplicates.py`), copies of copies included; only images of one
group need to be compared, so memory is the largest group's, in one row at a time.

Shape legend: G images of a group, D features, S side of a small picture.
"""

import numpy as np
from numpy.typing import NDArray

from worker.advice.findings import Finding, Found, rows
from worker.data.phash import NONE
from worker.data.samples import Index
from worker.data.splits import SPLITS
from worker.overlap.copies import MAX_BITS, Looker, Small, agree, apart

Ints = NDArray[np.int64]
Float = NDArray[np.float32]

# What stays: the first of these that a picture is in. Whatever is taken away, the test split stays as it is.
_ORDER = np.array([SPLITS.index(name) for name in ("test", "val", "train")])
_RANK = np.argsort(_ORDER)
MAX_CHANGE = 500


def find(index: Index, feats_ND: Float, look: Looker) -> Found:
    """One finding for each picture with copies: those across splits first, then the largest.

    Args:
        index: of the dataset.
        feats_ND: of all its images.
        look: small pictures of rows, ascending.

    Shape:
        feats_ND: [N, D], raw: centring would change the angles
    """
    order = np.argsort(index.group, kind="stable")
    _, starts, sizes = np.unique(index.group[order], return_index=True, return_counts=True)
    found = []
    for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        members = order[start : start + size]
        members = members[np.lexsort((members, _RANK[index.split[members]]))]
        same = (index.sha256[members] == index.sha256[members[0]]).all()
        ascending = np.sort(members)
        shown = None if same else look(ascending)[np.searchsorted(ascending, members)]
        found += [_finding(index, cluster, near) for cluster, near in clusters(index, members, feats_ND, shown)]
    found.sort(key=lambda one: (not one.data["across_test"], not one.data["across_splits"], -len(one.rows), one.rows))
    return Found(tuple(found))


def clusters(index: Index, members: Ints, feats_ND: Float, shown_GSS3: Small | None) -> list[tuple[Ints, float]]:
    """Pictures of a group that are there more than once: rows, the one to keep first, and the least agreement with it.

    Two pictures agree by the share of contrast that they have in common, or by the cosine of their features, whichever
    is more; those of equal bytes wholly. Where all have the same bytes none need be shown.

    Every image outside the test split is a copy of the first of its cluster, or of a test image in it: what is removed
    is never only a copy of a copy of what stays. Test images are compared with everything, so no leak is missed.
    """
    number = len(members)
    test_G = index.split[members] == SPLITS.index("test")
    unit_GD = feats_ND[members].astype(np.float32)
    unit_GD /= np.maximum(np.linalg.norm(unit_GD, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    hash_G, bytes_G = index.phash[members], index.sha256[members]
    cluster_G, alike_G = np.full(number, -1), np.ones(number)
    for place in range(number):
        if cluster_G[place] >= 0 and not test_G[place]:
            continue
        open_G = np.flatnonzero(cluster_G < 0)
        if cluster_G[place] < 0:
            cluster_G[place] = place
        same_O = bytes_G[open_G] == bytes_G[place]
        alike_O = np.where(same_O, 1.0, 0.0)
        if shown_GSS3 is not None and hash_G[place] != NONE:
            near_O = np.bitwise_count(hash_G[open_G] ^ hash_G[place]) <= MAX_BITS
            looked = np.flatnonzero(near_O & ~same_O & (hash_G[open_G] != NONE))
            cosine_L = np.minimum(unit_GD[open_G[looked]] @ unit_GD[place], 1.0)
            apart_L = apart(shown_GSS3[open_G[looked]], shown_GSS3[place])
            alike_O[looked] = np.where(agree(apart_L, cosine_L), np.maximum(cosine_L, 1 - apart_L), 0.0)
        taken_O = (alike_O > 0) & (open_G != place)
        cluster_G[open_G[taken_O]] = cluster_G[place]
        alike_G[open_G[taken_O]] = alike_O[taken_O]
    found = []
    for first in np.flatnonzero(cluster_G == np.arange(number)).tolist():
        inside = np.flatnonzero(cluster_G == first)
        if len(inside) > 1:
            found.append((members[inside], float(alike_G[inside].min())))
    return found


def _finding(index: Index, cluster: Ints, near: float) -> Finding:
    """What is said of one picture and its copies."""
    splits = [SPLITS[place] for place in _ORDER.tolist() if (index.split[cluster] == place).any()]
    across, leaked = len(splits) > 1, len(splits) > 1 and splits[0] == "test"
    column = index.columns[0]
    names = sorted({column.text(row) for row in cluster.tolist()}) if column.kind == "class" else [""]
    equal = len(set(index.sha256[cluster].tolist())) == 1
    # Copies outside the test split where there are some in it, else all but the first.
    extra = cluster[index.split[cluster] != SPLITS.index("test")] if leaked else cluster[1:]
    what = (
        f"{len(cluster)} images are one picture ({'the same bytes' if equal else f'they agree by at least {near:.0%}'})"
    )
    if leaked:
        what += (
            f", in {' and '.join(splits)}: the test score counts what was learned by heart; remove those outside test"
        )
    elif across:
        what += f", in {' and '.join(splits)}: remove all but one"
    else:
        what += f" in {splits[0]}: it counts {len(cluster)} times; remove all but one"
    if len(names) > 1:
        what += f". They bear different labels: {', '.join(map(repr, names[:5]))}; see which is right"
    if len(extra) > MAX_CHANGE:
        what += f". {len(extra)} are too many for one finding: {MAX_CHANGE} are named here, ask again for the rest"
    # Of copies within one split that bear different labels nobody knows which to keep.
    decided = leaked or len(names) == 1
    return Finding(
        "near_duplicate",
        what,
        rows(cluster),
        names[0] or None,
        "remove" if decided else "look",
        rows(extra[:MAX_CHANGE]) if decided else (),
        None,
        1.0 if equal else near,
        {
            "across_test": leaked,
            "across_splits": across,
            "splits": splits,
            "same_bytes": equal,
            "agreement": round(near, 5),
            "labels": names[:20],
        },
    )
