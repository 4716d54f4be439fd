"""Whether Triton's own server loads the folder that a version is exported as, and says what Graft says.

The server is that of `nvidia-pytriton`, and its backend for ONNX graphs is `peers/triton_backend.py`: what is tried is
the folder, its configuration, its labels and its graph, not the speed.
"""

import shutil
import zipfile

import httpx
import numpy as np
import tritonclient.http as client

from app.artifact import preprocess
from benchmarks.serving import servers
from benchmarks.serving.parts import Bench, Figures, most
from benchmarks.serving.servers import MODEL

NUM_PHOTOS = 8


def run(bench: Bench) -> Figures:
    """The largest difference of a score, and how often the best label is another one."""
    photos = bench.usual[:NUM_PHOTOS]
    with servers.graft(bench.home) as server:
        url = f"http://{server.host}:{server.port}{server.path}"
        answers = [httpx.post(url, files={"file": photo}, timeout=60).json()["predictions"][0] for photo in photos]
    command, environment = _command(bench)
    with servers.triton(command, environment, bench.home / "triton.log") as server:
        triton = client.InferenceServerClient(f"{server.host}:{server.port}")
        pixels = client.InferInput("images", [len(photos), bench.shape.height, bench.shape.width, 3], "UINT8")
        pixels.set_data_from_numpy(np.stack([preprocess.load(photo, bench.shape) for photo in photos]))
        scores_NC = triton.infer(MODEL, [pixels]).as_numpy("probabilities")
        best = client.InferRequestedOutput("probabilities", class_count=1)
        told = triton.infer(MODEL, [pixels], outputs=[best]).as_numpy("probabilities")
        version = triton.get_server_metadata()["version"]
    labels = (bench.home / "models" / MODEL / "labels.txt").read_text().splitlines()
    ours = [{one["label"]: one["score"] for one in answer["scores"]} for answer in answers]
    differences = [
        abs(mine[label] - score)
        for mine, scores in zip(ours, scores_NC, strict=True)
        for label, score in zip(labels, scores.tolist(), strict=True)
    ]
    # Score, place and label.
    other = sum(row[0].decode().split(":", 2)[2] != answer["label"] for row, answer in zip(told, answers, strict=True))
    return {
        "server": f"triton {version}",
        "num_photos": len(photos),
        "goals": [
            most("largest difference of a score that Triton gives from the exported folder", max(differences), 1e-4),
            most("photos of which Triton gives another best label", other, 0),
        ],
    }


def _command(bench: Bench) -> tuple[list[str], dict[str, str]]:
    """The server on the exported folder, with backends put together for it."""
    python = servers.environment_of(bench.peers, "triton", ["numpy<2"], files=["nvidia-pytriton"])
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    server, backends = site / "pytriton" / "tritonserver", bench.home / "backends"
    shutil.copytree(server / "backends" / "python", backends / "python")
    stubs = server / "python_backend_stubs" / site.parent.name.removeprefix("python")
    stub = backends / "python" / "triton_python_backend_stub"
    shutil.copy(stubs / stub.name, stub)
    stub.chmod(0o755)
    (backends / "onnxruntime").mkdir()
    shutil.copy(servers.PEERS / "triton_backend.py", backends / "onnxruntime" / "model.py")
    with zipfile.ZipFile(bench.home / servers.REPOSITORY) as archive:
        archive.extractall(bench.home / "models")
    command = [str(server / "bin" / "tritonserver"), "--model-repository", str(bench.home / "models")]
    command += ["--backend-directory", str(backends), "--allow-grpc", "false", "--allow-metrics", "false"]
    return command, {"LD_LIBRARY_PATH": str(site / "nvidia_pytriton.libs"), "PEER_PACKAGES": str(site)}
