"""Every scenario by its name, in the order in which failpoints are looked for."""

from collections.abc import Callable

from benchmarks.chaos.collecting import collect
from benchmarks.chaos.expiring import due, expired, left, overdue
from benchmarks.chaos.lab import Done, Lab
from benchmarks.chaos.model_scenarios import add_class, alias, import_bundle, logged, observed
from benchmarks.chaos.scenarios import (
    adapt,
    advise,
    align,
    align_across,
    cold,
    delete,
    first_on_backbone,
    folds,
    ingest,
    late,
    own_backbone,
    predict,
    rank,
    refused,
    repeated,
    told,
    transfer,
    tune,
    upload,
)

SCENARIOS: dict[str, Callable[[Lab], Done]] = {
    one.__name__: one
    for one in (transfer, late, cold, first_on_backbone, tune, adapt, ingest, repeated, upload, folds, rank, advise,
                predict, align, align_across, alias, delete, add_class, import_bundle, own_backbone, refused,
                logged, observed, told, collect, due, overdue, expired, left)
}  # fmt: skip
