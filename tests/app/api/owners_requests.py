"""Requests about things of a project, for every route that names one: as its owner would send them."""

import json
import re

from tests import factories
from tests.app.api import worlds

V1, MODEL, VERSION = "/api/v1", "/api/v1/models/{model}", "/api/v1/models/{model}/versions/1"
HOOK, OWN_HOOK = "/api/v1/webhooks/{webhook}", "/api/v1/webhooks/[webhook]"
PICTURE = factories.png()
IMAGE = {"content": PICTURE, "headers": {"Content-Type": "image/png"}}
LINES = {"content": PICTURE, "headers": {"Content-Type": "image/png", "Accept": "application/x-ndjson"}}
BYTES = [{"name": "encoded", "datatype": "BYTES", "shape": [1], "data": ["aGFsbG8="]}]
TUS = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
PROBE = {"method": "linear_probe"}
JOB = {"model": "new", "backbone": factories.BACKBONE, "recipe": PROBE}
FIT = {"method": "z_score", "backbone": factories.BACKBONE}


def body(**fields):
    return {"json": fields}


# Every way to name something that a project has: with {names} of a world's ids, and in brackets those of whoever asks,
# so that of a stranger's request what comes first is right and the other's is what is refused.
REQUESTS = [
    ("GET /api/v1/datasets/{dataset_id}", V1 + "/datasets/{dataset}", {}),
    ("GET /api/v1/datasets/{dataset_id}/problems", V1 + "/datasets/{dataset}/problems", {}),
    ("GET /api/v1/datasets/{dataset_id}/samples", V1 + "/datasets/{dataset}/samples", {}),
    ("POST /api/v1/datasets", V1 + "/datasets", body(name="child", base="{dataset}", remove=["x"])),
    ("POST /api/v1/datasets/{dataset_id}/advice", V1 + "/datasets/{dataset}/advice", body(backbone=factories.BACKBONE)),
    ("POST /api/v1/datasets/{dataset_id}/advice", V1 + "/datasets/[dataset]/advice",
     body(backbone=factories.BACKBONE, against="{dataset}")),
    ("GET /api/v1/advice", V1 + "/advice?dataset={dataset}", {}),
    ("GET /api/v1/advice/{advice_id}", V1 + "/advice/{advice}", {}),
    ("GET /api/v1/advice/{advice_id}", V1 + "/advice/{advice}", {"headers": {"Accept": "text/html"}}),
    ("POST /api/v1/advice/{advice_id}/apply", V1 + "/advice/{advice}/apply", body(findings=["near_duplicate-1"])),
    ("GET /api/v1/alignments/{alignment_id}", V1 + "/alignments/{alignment}", {}),
    ("GET /api/v1/alignments/{alignment_id}/files/{file}", V1 + "/alignments/{alignment}/files/alignment.onnx", {}),
    ("POST /api/v1/alignments", V1 + "/alignments", body(**FIT, source="{dataset}", target="{other}")),
    ("POST /api/v1/alignments", V1 + "/alignments", body(**FIT, source="[dataset]", target="{other}")),
    ("GET /api/v1/backbones/own/{name}", V1 + "/backbones/own/{backbone}", {}),
    ("GET /api/v1/backbones/{provider}/{name}", V1 + "/backbones/user/{backbone}", {}),
    ("POST /api/v1/backbones", V1 + "/backbones", body(name="new", model="{model}", version=1)),
    ("GET /api/v1/evaluations/{evaluation_id}", V1 + "/evaluations/{evaluation}", {}),
    ("POST /api/v1/evaluations", V1 + "/evaluations", body(dataset="{dataset}", model="{model}")),
    ("POST /api/v1/evaluations", V1 + "/evaluations", body(dataset="[dataset]", model="{model}")),
    ("POST /api/v1/evaluations", V1 + "/evaluations",
     body(dataset="[dataset]", model="[model]", against={"model": "{model}", "version": 1})),
    ("POST /api/v1/evaluations", V1 + "/evaluations",
     body(mode="folds", dataset="{dataset}", recipe=PROBE, backbone=factories.BACKBONE)),
    ("POST /api/v1/evaluations", V1 + "/evaluations",
     body(mode="folds", dataset="[dataset]", recipe=PROBE, backbone="user/{backbone}")),
    ("POST /api/v1/jobs", V1 + "/jobs", body(**JOB, dataset="{dataset}")),
    ("POST /api/v1/jobs", V1 + "/jobs", body(**JOB, dataset="[dataset]", depends_on=["{queued}"])),
    ("POST /api/v1/jobs", V1 + "/jobs", body(**{**JOB, "backbone": "user/{backbone}"}, dataset="[dataset]")),
    ("POST /api/v1/jobs", V1 + "/jobs",
     body(**{**JOB, "recipe": {"method": "adapt", "source": "{dataset}"}}, dataset="[dataset]")),
    ("POST /api/v1/jobs", V1 + "/jobs",
     body(**{**JOB, "recipe": {"method": "auto", "unlabelled": "{dataset}"}}, dataset="[dataset]")),
    ("POST /api/v1/jobs", V1 + "/jobs", body(kind="predict", dataset="{dataset}", model="[model]")),
    ("POST /api/v1/jobs", V1 + "/jobs", body(kind="predict", dataset="[dataset]", model="{model}")),
    ("POST /api/v1/jobs", V1 + "/jobs", body(kind="extract", dataset="{dataset}", backbone=factories.BACKBONE)),
    ("POST /api/v1/jobs", V1 + "/jobs", body(kind="extract", dataset="[dataset]", backbone="user/{backbone}")),
    ("GET /api/v1/jobs", V1 + "/jobs?dataset={dataset}", {}),
    ("GET /api/v1/jobs/{job_id}", V1 + "/jobs/{done}", {}),
    ("GET /api/v1/jobs/{job_id}/events", V1 + "/jobs/{done}/events", {}),
    ("GET /api/v1/jobs/{job_id}/events", V1 + "/jobs/{done}/events", {"headers": {"Accept": "text/event-stream"}}),
    ("GET /api/v1/jobs/{job_id}/report", V1 + "/jobs/{done}/report", {}),
    ("GET /api/v1/jobs/{job_id}/predictions", V1 + "/jobs/{predict}/predictions", {}),
    ("GET /api/v1/jobs/{job_id}/features", V1 + "/jobs/{extract}/features", {}),
    ("POST /api/v1/jobs/{job_id}/reproduce", V1 + "/jobs/{done}/reproduce", {}),
    ("POST /api/v1/jobs/{job_id}/retry", V1 + "/jobs/{failed}/retry", {}),
    ("POST /api/v1/jobs/{job_id}/stop", V1 + "/jobs/{running}/stop", {}),
    ("POST /api/v1/jobs/{job_id}/cancel", V1 + "/jobs/{queued}/cancel", {}),
    ("GET /api/v1/models", V1 + "/models?after={model}", {}),
    ("GET /api/v1/models/{name}", MODEL, {}),
    ("GET /api/v1/models/{name}/aliases/{alias}", MODEL + "/aliases/production", {}),
    ("PUT /api/v1/models/{name}/aliases/{alias}", MODEL + "/aliases/staging", body(version=1)),
    ("POST /api/v1/models/{name}/aliases/{alias}/rollback", MODEL + "/aliases/production/rollback", {}),
    ("POST /api/v1/models/{name}/classes", MODEL + "/classes", {"data": {"label": "new"}, "files": {"file": PICTURE}}),
    ("GET /api/v1/models/{name}/domains", MODEL + "/domains", {}),
    ("GET /api/v1/models/{name}/domains/{domain}", MODEL + "/domains/night", {}),
    ("PUT /api/v1/models/{name}/domains/{domain}", MODEL + "/domains/day", body(alignment="{unbound}")),
    ("PUT /api/v1/models/{name}/domains/{domain}", V1 + "/models/[model]/domains/day", body(alignment="{unbound}")),
    ("GET /api/v1/models/{name}/drift", MODEL + "/drift", {}),
    ("POST /api/v1/models/{name}/embed", MODEL + "/embed", IMAGE),
    ("GET /api/v1/models/{name}/log", MODEL + "/log", {}),
    ("GET /api/v1/models/{name}/log", MODEL + f"/log?day={worlds.DAY}", {}),
    ("PUT /api/v1/models/{name}/log", MODEL + "/log", body(share=0.5)),
    ("POST /api/v1/models/{name}/predict", MODEL + "/predict", IMAGE),
    ("POST /api/v1/models/{name}/predict", MODEL + "/predict?alias=production", LINES),
    ("POST /api/v1/models/{name}/predict", MODEL + "/predict?domain=night", IMAGE),
    ("GET /api/v1/models/{name}/versions", MODEL + "/versions", {}),
    ("GET /api/v1/models/{name}/versions/{version}", VERSION, {}),
    ("GET /api/v1/models/{name}/versions/{version}/bundle", VERSION + "/bundle", {}),
    ("GET /api/v1/models/{name}/versions/{version}/files/{file}", VERSION + "/files/spec.json", {}),
    ("GET /api/v1/models/{name}/versions/{version}/lineage", VERSION + "/lineage", {}),
    ("GET /api/v1/models/{name}/versions/{version}/mlflow", VERSION + "/mlflow", {}),
    ("GET /api/v1/models/{name}/versions/{version}/repository", VERSION + "/repository", {}),
    ("GET /api/v1/rankings/{ranking_id}", V1 + "/rankings/{ranking}", {}),
    ("POST /api/v1/rankings", V1 + "/rankings", body(dataset="{dataset}", backbones=[factories.BACKBONE])),
    ("POST /api/v1/rankings", V1 + "/rankings", body(dataset="[dataset]", backbones=["user/{backbone}"])),
    ("GET /api/v1/webhooks/{webhook_id}", HOOK, {}),
    ("PATCH /api/v1/webhooks/{webhook_id}", HOOK, body(description="mine")),
    ("GET /api/v1/webhooks/{webhook_id}/deliveries", HOOK + "/deliveries", {}),
    ("GET /api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}", HOOK + "/deliveries/{delivery}", {}),
    ("GET /api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}", OWN_HOOK + "/deliveries/{delivery}", {}),
    ("POST /api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay", HOOK + "/deliveries/{delivery}/replay", {}),
    ("POST /api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay",
     OWN_HOOK + "/deliveries/{delivery}/replay", {}),
    ("POST /api/v1/webhooks/{webhook_id}/secret", HOOK + "/secret", {}),
    ("POST /api/v1/webhooks/{webhook_id}/test", HOOK + "/test", {}),
    ("GET /api/v1/uploads/{upload_id}", V1 + "/uploads/{half}", {}),
    ("PATCH /api/v1/uploads/{upload_id}", V1 + "/uploads/{half}", {"content": b"x", "headers": TUS}),
    ("GET /api/v1/uploads/{upload_id}/parts", V1 + "/uploads/{half}/parts", {}),
    ("POST /api/v1/uploads/{upload_id}/complete", V1 + "/uploads/{half}/complete", body(sha256="a" * 64)),
    ("POST /api/v1/datasets", V1 + "/datasets", body(name="new", upload_id="{upload}")),
    ("POST /api/v1/models/{name}/versions", V1 + "/models/new/versions", body(upload_id="{upload}")),
    ("POST /api/v1/backbones", V1 + "/backbones",
     body(name="uploaded", architecture=factories.BACKBONE, upload_id="{upload}")),
    ("GET /v2/models/{name}", "/v2/models/{model}", {}),
    ("GET /v2/models/{name}/config", "/v2/models/{model}/config", {}),
    ("GET /v2/models/{name}/ready", "/v2/models/{model}/ready", {}),
    ("GET /v2/models/{name}/stats", "/v2/models/{model}/stats", {}),
    ("POST /v2/models/{name}/infer", "/v2/models/{model}/infer", body(inputs=BYTES)),
    ("GET /v2/models/{name}/versions/{version}", "/v2/models/{model}/versions/1", {}),
    ("GET /v2/models/{name}/versions/{version}/config", "/v2/models/{model}/versions/1/config", {}),
    ("GET /v2/models/{name}/versions/{version}/ready", "/v2/models/{model}/versions/1/ready", {}),
    ("GET /v2/models/{name}/versions/{version}/stats", "/v2/models/{model}/versions/1/stats", {}),
    ("POST /v2/models/{name}/versions/{version}/infer", "/v2/models/{model}/versions/1/infer", body(inputs=BYTES)),
    ("POST /v2/repository/models/{name}/load", "/v2/repository/models/{model}/load", {}),
    ("POST /v2/repository/models/{name}/unload", "/v2/repository/models/{model}/unload", {}),
    # What takes things away comes last, and the part before the whole.
    ("DELETE /api/v1/jobs/{job_id}/predictions", V1 + "/jobs/{predict}/predictions", {}),
    ("DELETE /api/v1/jobs/{job_id}/features", V1 + "/jobs/{extract}/features", {}),
    ("DELETE /api/v1/backbones/own/{name}", V1 + "/backbones/own/{backbone}", {}),
    ("DELETE /api/v1/models/{name}/log", MODEL + "/log", {}),
    ("DELETE /api/v1/models/{name}/domains/{domain}", MODEL + "/domains/night", {}),
    ("DELETE /api/v1/models/{name}/aliases/{alias}", MODEL + "/aliases/production", {}),
    ("DELETE /api/v1/models/{name}/versions/{version}", VERSION, {}),
    ("DELETE /api/v1/models/{name}", MODEL, {}),
    ("DELETE /api/v1/alignments/{alignment_id}", V1 + "/alignments/{alignment}", {}),
    ("DELETE /api/v1/advice/{advice_id}", V1 + "/advice/{advice}", {}),
    ("DELETE /api/v1/rankings/{ranking_id}", V1 + "/rankings/{ranking}", {}),
    ("DELETE /api/v1/evaluations/{evaluation_id}", V1 + "/evaluations/{evaluation}", {}),
    ("DELETE /api/v1/datasets/{dataset_id}", V1 + "/datasets/{other}", {}),
    ("DELETE /api/v1/uploads/{upload_id}", V1 + "/uploads/{half}", {}),
    ("DELETE /api/v1/webhooks/{webhook_id}", HOOK, {}),
    ("DELETE /api/v1/keys/{key_id}", V1 + "/keys/{key}", {}),
]  # fmt: skip


def send(service, request, ids, own, headers):
    """The answer to a request with these ids in its places."""
    name, path, given = request
    filled = json.loads(_fill(json.dumps({"path": path, "json": given.get("json")}), ids, own))
    arguments = {key: value for key, value in given.items() if key not in ("json", "headers")}
    if filled["json"] is not None:
        arguments["json"] = filled["json"]
    return service.request(
        name.split()[0], filled["path"], headers={**given.get("headers", {}), **headers}, **arguments
    )


def _fill(shape, ids, own):
    shape = re.sub(r"\{(\w+)\}", lambda found: ids.get(found[1], found[0]), shape)
    return re.sub(r"\[(\w+)\]", lambda found: own.get(found[1], found[0]), shape)
