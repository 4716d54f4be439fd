"""Alignment methods: the frozen, typed configuration of each, with what it is fitted on.

A method is one class here and one row in `worker/alignments/table.py`. `source` is the domain that a head was trained
in, `target` the new one; what is fitted moves features of the target to the source.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, Field, TypeAdapter, model_validator

from app.bodies import BODY, By

LAYER = "pooled"
PAIRED_BY = {
    "path": "the path in their uploads",
    "name": "the file's name without folders and suffix",
    "sha256": "the bytes",
}
OT_SAMPLES = 1000

DatasetId = Annotated[str, Field(min_length=1, max_length=40)]
BackboneName = Annotated[str, Field(min_length=1, max_length=200)]
Share = Annotated[float, Field(ge=0, le=1)]
_SHRINKAGE = (
    "Share of both covariances that is replaced by a multiple of the identity; null takes the one under which a "
    "held-out fifth of both domains is closest (MMD)."
)


class Alignment(BaseModel):
    """What all methods share: frozen, and an unknown field is an error."""

    model_config = BODY

    paper: ClassVar[str]
    summary: ClassVar[str]
    paired: ClassVar[bool]

    source: DatasetId = Field(description="Dataset that the head was trained on; its test split is never used.")
    backbone: BackboneName = Field(description="Backbone under the head; the alignment is keyed to it.")
    seed: int = Field(0, ge=0, lt=2**31, description="Of the held-out part and of sampling.")


class Unpaired(Alignment):
    """Two datasets under one backbone; no labels and no pairs are read."""

    paired = False

    target: DatasetId = Field(description="Dataset of the new domain, labelled or not; its labels are never read.")

    @model_validator(mode="after")
    def _two_datasets(self) -> Self:
        if self.target == self.source:
            raise ValueError("expected two datasets; found the source as the target; name the new domain's dataset")
        return self


class Paired(Alignment):
    """The same items seen twice: in two datasets, under two backbones, or both."""

    paired = True

    target: DatasetId | None = Field(
        None, description="Dataset with the same items in the new domain; the source itself by default."
    )
    from_backbone: BackboneName | None = Field(
        None, description="Backbone of the incoming features, of any width; `backbone` by default."
    )
    pair_by: Literal["path", "name", "sha256"] = Field(
        "path",
        description=f"What two samples of a pair share: {', '.join(PAIRED_BY.values())}. Samples whose key is not "
        "unique in their dataset are left out.",
    )

    @model_validator(mode="after")
    def _something_differs(self) -> Self:
        if self.target in (None, self.source) and self.from_backbone in (None, self.backbone):
            raise ValueError("expected another target or another from_backbone; found neither; name one of them")
        return self


class ZScore(Unpaired):
    """Each domain standardised by its own statistics."""

    paper = "Li et al., Revisiting Batch Normalization For Practical Domain Adaptation, arXiv 1603.04779"
    summary = "Per-domain z-score: every feature gets the mean and the scale that it has in the source."

    method: Literal["z_score"] = "z_score"


class MomentMatching(Unpaired):
    """The first moments of every feature are made equal."""

    paper = "Zellinger et al., Central Moment Discrepancy, arXiv 1702.08811 (its first two orders, in closed form)"
    summary = (
        "Means (order 1), or means and scales (order 2: alpha = s_source / s_target), of every feature are made equal; "
        "order 2 equals z_score."
    )

    method: Literal["moment_matching"] = "moment_matching"
    order: Literal[1, 2] = Field(2, description="2 matches mean and scale; 1 shifts only, safer with few images.")


class Coral(Unpaired):
    """Covariances are made equal."""

    paper = "Sun et al., Correlation Alignment for Unsupervised Domain Adaptation, arXiv 1612.01939 and 1511.05547"
    summary = "CORAL: whiten with the target's covariance, colour with the source's; means are matched too."

    method: Literal["coral"] = "coral"
    shrinkage: Share | None = Field(None, description=_SHRINKAGE)


class Whitening(Unpaired):
    """Correlations are made equal, apart from scales."""

    paper = "Kessy et al., Optimal Whitening and Decorrelation, arXiv 1512.00809"
    summary = "ZCA whitening of correlations and back: CORAL in which features of large variance do not rule."

    method: Literal["whitening"] = "whitening"
    shrinkage: Share | None = Field(None, description=_SHRINKAGE.replace("covariances", "correlations"))


class OptimalTransport(Unpaired):
    """The domain is carried over with the least movement."""

    paper = "Flamary et al., Concentration bounds for linear Monge mapping, arXiv 1905.10155; Courty et al., 1507.00504"
    summary = "Optimal transport by POT: the linear map between Gaussians, or exact transport of samples made affine."

    method: Literal["optimal_transport"] = "optimal_transport"
    map: Literal["gaussian", "barycentric"] = Field(
        "gaussian", description="Closed form from means and covariances, or a plan between samples."
    )
    shrinkage: Share | None = Field(None, description=_SHRINKAGE + " For `gaussian`; chosen as for coral.")
    max_samples: int = Field(
        OT_SAMPLES, ge=10, le=4000, description="Items of each domain in the plan of `barycentric`, drawn by the seed."
    )
    strength: float = Field(
        1.0, gt=0, le=1e6, description="Ridge on the movement in `barycentric`, relative to the mean variance."
    )


class PairedAffine(Paired):
    """alpha * x + beta for every feature, from pairs."""

    paper = "Least squares on pairs: X_target = alpha X_source + beta, features scaled by 1/sqrt(n)"
    summary = (
        "One factor and one offset per feature by mean squared error, closed form or gradient descent; nothing is "
        "penalised, so with few pairs the factors follow single pictures, and features that hardly vary in the target "
        "are amplified; under thirty pairs, and of factors beyond 10 or -10, `result.warnings` says so. Then take "
        "`ridge` or `procrustes`, or give more pairs."
    )

    method: Literal["affine"] = "affine"
    solver: Literal["closed_form", "gradient_descent"] = Field(
        "closed_form",
        description="Descent comes nearer to the closed form with every step, and reports its first and last loss.",
    )
    learning_rate: float = Field(0.1, gt=0, lt=2, description="Of descent, in units of n/2: 1 solves it in one step.")
    steps: int = Field(500, ge=1, le=100_000, description="Of descent.")


class PairedRidge(Paired):
    """A full matrix from pairs."""

    paper = "Hoerl and Kennard, Ridge Regression, 1970"
    summary = "A full matrix by ridge regression, rectangular where the widths differ."

    method: Literal["ridge"] = "ridge"
    strength: float | None = Field(
        None, gt=0, le=1e6, description="Relative to the mean variance of the features; null chooses on held-out pairs."
    )


class Procrustes(Paired):
    """A rotation from pairs."""

    paper = "Schoenemann, A generalized solution of the orthogonal Procrustes problem, 1966"
    summary = "Rotation or reflection, one scale and a shift; the narrower side is padded with zeros."

    method: Literal["procrustes"] = "procrustes"


METHODS: dict[str, type[Alignment]] = {
    "z_score": ZScore,
    "moment_matching": MomentMatching,
    "coral": Coral,
    "whitening": Whitening,
    "optimal_transport": OptimalTransport,
    "affine": PairedAffine,
    "ridge": PairedRidge,
    "procrustes": Procrustes,
}

AnyAlignment = Annotated[
    ZScore | MomentMatching | Coral | Whitening | OptimalTransport | PairedAffine | PairedRidge | Procrustes,
    By("method"),
]
_ADAPTER: TypeAdapter[Any] = TypeAdapter(AnyAlignment)


def parse(document: dict[str, Any]) -> Any:
    """A stored configuration, checked once before."""
    return _ADAPTER.validate_python(document)
