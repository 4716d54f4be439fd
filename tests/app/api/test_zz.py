from tests.app.api.test_any_input import *
def test(light_client):
    for t in TEXTS:
        r=light_client.get(filled("/api/v1/jobs/{job_id}",{"job_id":t})); print(repr(t)[:30], r.status_code, repr(r.json()["instance"])[:60], repr(r.request.url.path)[:60])
