"""Under which name the features of a version's images are cached."""

from app.artifact import bundle
from app.artifact.spec import File
from tests.app import onnx_factories
from worker.studies.served_version import cache_digest

GRAPH, WEIGHTS = "a" * 64, "b" * 64


def digest(key: str | None) -> str:
    files = {bundle.BACKBONE: File(sha256=GRAPH, size_bytes=1, key=key)}
    described = onnx_factories.make_spec(files=files)
    assert described.backbone.digest == WEIGHTS
    return cache_digest(described)


def test_a_graph_that_a_job_here_has_proven_goes_by_its_weights() -> None:
    assert digest(bundle.shared_key(WEIGHTS)) == WEIGHTS
    assert digest(None) == WEIGHTS


def test_an_imported_graph_goes_by_itself_whatever_its_bundle_says_of_its_weights() -> None:
    assert digest(bundle.shared_key(GRAPH)) == GRAPH
