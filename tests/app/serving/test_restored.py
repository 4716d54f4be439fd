"""Files of a version that were damaged, in the object store or in this host's copy of it, and are whole again."""

import errno

import pytest

from app.artifact import bundle
from app.artifact import spec as specs
from app.artifact.reference import Reference
from app.errors import NotReady
from app.serving import stored
from app.storage import FolderStorage, open_storage
from tests import factories
from tests.app import bundle_factories, onnx_factories
from tests.app.serving.engines import SECONDS, load, running
from tests.factories import files_below

pytestmark = pytest.mark.server


@pytest.fixture
def storage(s3_url, tmp_path):
    return open_storage(s3_url, tmp_path / "cache")


@pytest.fixture
def row(database, storage, tmp_path):
    with database.write() as session:
        of = factories.model(session, "tiny", 0)
        return bundle_factories.publish(session, storage, tmp_path / "made", of, 1, shared=False)


@pytest.fixture
def operator(s3_url, tmp_path):
    """Puts objects into the bucket from another host; says what was there."""
    other = open_storage(s3_url, tmp_path / "other")

    def put(key, content):
        before = other.fetch(key).read_bytes()
        (tmp_path / "content").write_bytes(content)
        other.put(key, tmp_path / "content")
        return before

    return put


@pytest.mark.parametrize("database_kind", ["sqlite"])
@pytest.mark.parametrize("name", [bundle.BACKBONE, bundle.HEAD, bundle.SAMPLE])
def test_a_version_is_ready_once_its_object_is_restored(storage, row, operator, name):
    key = f"{row.prefix}/{name}"
    whole = operator(key, b"damaged")
    model = stored.version(storage, row.prefix, specs.of_row(row.spec))
    with running(1) as engine:
        for _ in range(2):
            with pytest.raises(NotReady):
                engine.load(model)
        operator(key, whole)
        engine.load(model)
        assert engine.trials.passed(model)


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_copy_that_rots_is_fetched_again(storage, row, tmp_path):
    model = stored.version(storage, row.prefix, specs.of_row(row.spec))
    with running(1) as engine:
        engine.load(model)
        engine.unload(model.head.sha256)
        storage.fetch(f"{row.prefix}/{bundle.HEAD}").write_bytes(b"rotten")
        with pytest.raises(NotReady):
            engine.load(model)
        engine.load(model)
    assert files_below(tmp_path / "cache") != []


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_reference_and_a_file_that_was_cut_short_are_read_anew(storage, row, operator):
    spec = specs.of_row(row.spec)
    key = f"{row.prefix}/{bundle.REFERENCE}"
    whole = operator(key, b"damaged")
    assert "damaged" in stored.reference(storage, row.prefix, spec)
    operator(key, whole)
    assert isinstance(stored.reference(storage, row.prefix, spec), Reference)

    operator(key, whole[:-1])
    storage.forget(key)
    with pytest.raises(specs.BundleError, match=r"expected reference\.safetensors of"):
        stored.fetch(storage, row.prefix, spec, bundle.REFERENCE)
    operator(key, whole)
    assert stored.fetch(storage, row.prefix, spec, bundle.REFERENCE).read_bytes() == whole


def ask(engine, model):
    return engine.submit(model, [factories.png()]).result(SECONDS)


@pytest.mark.parametrize("begin", [load, ask])
@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_backbone_that_opens_and_does_not_run_is_not_ready_until_it_is_restored(storage, row, operator, begin):
    spec = specs.of_row(row.spec)
    key = stored.key(row.prefix, spec, bundle.BACKBONE)
    whole = operator(key, onnx_factories.idle_backbone_bytes())
    model = stored.version(storage, row.prefix, spec)
    with running(1) as engine:
        with pytest.raises(NotReady, match="a backbone that runs here"):
            begin(engine, model)
        assert "a backbone that runs here" in engine.trials.failure(model)
        operator(key, whole)
        engine.load(model)
        assert ask(engine, model) is not None


class Failed(FolderStorage):
    """On a disk that takes no change any more."""

    def forget(self, key):
        raise OSError(errno.EROFS, "Read-only file system")


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_disk_that_has_failed_ends_no_thread(database, tmp_path):
    storage = Failed(tmp_path / "store")
    with database.write() as session:
        rows = [
            bundle_factories.publish(
                session, storage, tmp_path / name, factories.model(session, name, 0), 1, shared=False
            )
            for name in ("damaged", "whole")
        ]
    storage.path(f"{rows[0].prefix}/{bundle.BACKBONE}").write_bytes(b"damaged")
    damaged, whole = [stored.version(storage, row.prefix, specs.of_row(row.spec)) for row in rows]
    with running(1) as engine:
        with pytest.raises(NotReady):
            ask(engine, damaged)
        # By the only thread there is.
        assert ask(engine, whole) is not None
