"""Who may know whom, and what must not be in the repository."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "torchvision", "timm", "open_clip")
TORCH_FREE = [
    "app.main",
    "app.cli",
    "app.client",
    "app.serving.runtime",
    "worker.main",
    "worker.runner",
    "worker.ingestion",
    "worker.transfer",
    "worker.align",
    "worker.rank",
    "worker.ranking.transferability",
    "worker.evaluation",
    "worker.reports.lineage",
    "worker.publication.assemble",
    "worker.backbones.features",
    "worker.by_recipe",
    "worker.auto.search",
    "worker.methods.linear_probe",
    "worker.methods.zero_shot",
    "worker.methods.seen_classes",
    "worker.backbones.text",
    "worker.backbones.clip_text",
    "worker.methods.text_tower",
    "worker.reports.report",
    "worker.forecasting.forecast",
    "worker.reports.foresight",
]
# Written in pieces, so that this file passes its own test.
HOSTS = ["py" + "pi.org", "python" + "hosted", "npm" + "js", "deb." + "debian", "index" + "-url"]
PLACES = ["/wo" + "rk/", "/fa" + "rm/", "/ro" + "ot/", "/Us" + "ers/"]
FORBIDDEN = re.compile("|".join(map(re.escape, HOSTS + PLACES)))
BINARY = {".binpb", ".png", ".jpg", ".zip", ".onnx", ".parquet"}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name]


def test_contracts_of_the_import_linter_hold() -> None:
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("module", TORCH_FREE)
def test_module_stays_light(module: str, tmp_path: Path) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    environment = {"PATH": "", "GRAFT_HOME": str(tmp_path)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "[]"), ended.stderr


def test_client_imports_nothing_of_ours(tmp_path: Path) -> None:
    code = "import sys, app.client; print(sorted(name for name in sys.modules if name.startswith(('app.', 'worker'))))"
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert (
        shown.strip()
        == "['app.client', 'app.client.predicting', 'app.client.uploading', 'app.client.watching', 'app.client.wire']"
    )


def test_no_registry_host_and_no_machine_path_is_tracked() -> None:
    found = []
    for path in tracked():
        if path.suffix in BINARY or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if FORBIDDEN.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line[:120]}")
    assert found == []


def test_no_tracked_file_is_large() -> None:
    large = [path for path in tracked() if path.is_file() and path.stat().st_size > 3 * 2**20]
    assert large == []


def test_the_application_starts_without_grpc() -> None:
    """Who sets no port for it need not have it, nor wait for its import."""
    code = "import sys; sys.modules['grpc'] = sys.modules['google.protobuf'] = None; import app.main, app.cli"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
