"""Files in ranges (RFC 9110, section 14): what can be answered is, and a refusal is a problem document."""

import pytest

from tests import factories
from tests.app import bundle_factories
from tests.checks import problem


@pytest.fixture
def url(light_client, tmp_path):
    state = light_client.app.state.graft
    with state.database.write() as session:
        of = factories.model(session, "tiny", 0)
        bundle_factories.publish(session, state.storage, tmp_path, of, 1)
        of.last_version = 1
    return "/api/v1/models/tiny/versions/1/files/README.md"


def test_ranges(light_client, url):
    whole = light_client.get(url).content
    part = light_client.get(url, headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, whole[2:6])
    assert part.headers["Content-Range"] == f"bytes 2-5/{len(whole)}"


@pytest.mark.parametrize("given", ["bytes=a-b", "bytes=5-2", "bytes=", "lines=1-2", "nonsense", "bytes"])
def test_a_range_that_is_none_is_ignored(light_client, url, given):
    whole = light_client.get(url)
    answer = light_client.get(url, headers={"Range": given})
    assert (answer.status_code, answer.content) == (200, whole.content)
    assert answer.headers["content-type"] == whole.headers["content-type"]
    assert light_client.head(url, headers={"Range": given}).status_code == 200


def test_a_range_behind_the_end_is_refused(light_client, url):
    size = len(light_client.get(url).content)
    answer = light_client.get(url, headers={"Range": f"bytes={size}-"})
    assert f"({size} bytes)" in problem(answer, 416, "range_not_satisfiable")["detail"]
    assert answer.headers["Content-Range"] == f"bytes */{size}"
