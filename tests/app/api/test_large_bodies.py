"""Bodies that announce more than their route takes: refused at once, while the client still sends."""

import shutil

import pytest

from app.settings import Settings
from tests import listening
from tests.app.api.test_held import answer, begun

FORM = "multipart/form-data; boundary=part"
# The limits of files, of bundles (which have one of their own), of images and of JSON.
FILES, BUNDLE, IMAGES, JSON = 8 * 2**30, 2**32 - 1, 64 * 2**20, 16 * 2**20
ROUTES = [
    ("/api/v1/datasets", FORM, FILES, "GRAFT_MAX_UPLOAD_BYTES"),
    ("/api/v1/backbones", FORM, FILES, "GRAFT_MAX_UPLOAD_BYTES"),
    ("/api/v1/models/tiny/versions", FORM, BUNDLE, ""),
    ("/api/v1/models/tiny/classes", FORM, IMAGES, "GRAFT_MAX_PREDICT_BYTES"),
    ("/api/v1/models/tiny/predict", FORM, IMAGES, "GRAFT_MAX_PREDICT_BYTES"),
    ("/api/v1/models/tiny/predict", "image/png", IMAGES, "GRAFT_MAX_PREDICT_BYTES"),
    ("/api/v1/models/tiny/embed", "application/json", IMAGES, "GRAFT_MAX_PREDICT_BYTES"),
    ("/v2/models/tiny/infer", "application/octet-stream", IMAGES, "GRAFT_MAX_PREDICT_BYTES"),
    ("/v2/repository/index", "application/json", JSON, "GRAFT_MAX_JSON_BYTES"),
    ("/api/v1/datasets", "application/json", JSON, "GRAFT_MAX_JSON_BYTES"),
    ("/api/v1/uploads", "application/json", JSON, "GRAFT_MAX_JSON_BYTES"),
    # Whose body the framework reads.
    ("/api/v1/jobs", "application/json", JSON, "GRAFT_MAX_JSON_BYTES"),
]


@pytest.fixture(scope="module")
def address(sqlite_template, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    shutil.copyfile(sqlite_template, home / "graft.db")
    with listening.application(Settings(home=home, max_upload_bytes=FILES)) as (url, _):
        yield url


@pytest.mark.parametrize(("path", "kind", "most", "setting"), ROUTES)
def test_what_announces_too_much_is_refused_before_it_comes(address, path, kind, most, setting):
    status, _, body = answer(begun(address, path, most + 1, b"--part\r\n", kind))
    # That protocol has few statuses.
    expected, said = (400, body["error"]) if path.startswith("/v2") else (413, body["detail"])
    assert status == expected
    assert f"at most {most} bytes" in said
    assert setting in said
