"""What an armed place does, once; that every place of the registry is in the code once, and every write has one."""

import ast
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from app import failpoints

ROOT = Path(__file__).parents[2]
OBJECT_STORE = frozenset(
    f"{verb}_{what}"
    for verb, what in (
        ("put", "object"), ("delete", "object"), ("delete", "objects"), ("upload", "file"), ("upload", "fileobj"),
        ("upload", "part"), ("create", "multipart_upload"), ("complete", "multipart_upload"),
        ("abort", "multipart_upload"),
    )
)  # fmt: skip
# Of what a host has got ready for itself.
AGAIN = "renamed into place in the home of one host; what is not there is made again"
# Durable writes without a place of their own, each with the reason.
WITHOUT = {
    "app/api/arrivals.py Arrival.store": "archive_stored or weights_stored behind it",
    "app/api/auditing.py _write": "best effort, after the refusal that it tells of; nothing else is written",
    "app/api/keyring.py Keyring._write_touch": "best effort, one column that says when a key was used last",
    "app/cli_keys.py _create": "one transaction of a command; a secret that was not shown can be revoked",
    "app/cli_keys.py _revoke": "one transaction of a command, which may be given again",
    "app/cli_projects.py _limit": "one transaction of a command, which may be given again",
    "app/inbox/folder.py FolderInbox.assemble": "upload_changed before it, upload_assembled behind it",
    "app/inbox/folder.py FolderInbox.discard": "uploads_expired before it, upload_discarded behind it",
    "app/inbox/s3.py S3Inbox.assemble": "upload_changed before it, upload_assembled behind it",
    "app/inbox/s3.py S3Inbox._join": "one call of assemble",
    "app/inbox/s3.py S3Inbox.discard": "uploads_expired before it, upload_discarded behind it",
    "app/inbox/s3.py S3Inbox.abort": "one call of discard",
    "app/inbox/s3.py S3Inbox.forget": "upload_noted before it; a tail that stays goes with its upload",
    "app/inbox/s3.py S3Inbox.start_parts": "swept where no row names it; upload_taken or nothing before it",
    "app/inbox/s3.py S3Inbox.send": "upload_changed before it, upload_synced behind it",
    "app/inbox/s3.py _S3Sink._keep_tail": "upload_taken before it, upload_synced behind it",
    "app/client/wire.py Wire.download": "a file of the client",
    "app/client/wire.py Wire.save": "a file of the client",
    "app/failpoints.py reach": "the place itself",
    "app/services/backups.py _dump": "a file of a command, which may be given again",
    "app/services/backups.py _load": "the last step of a command, whole or not at all; it may be given again",
    "app/services/backups.py copy": "a command; the same again copies what is missing, and the database comes last",
    "app/services/collector.py Collector._shared": "takes a lock and writes no row; _remove has the place",
    "app/services/collector.py _renew": "one column that says that a collection lives",
    "app/services/logs.py Ledger.keep": "log_stored before it; a transaction of its own, behind which nothing follows",
    "app/services/probes.py try_storage": "an object that only says whether storage takes one; one name for all",
    "app/services/shared.py free": "removes what a collection would, which has the place",
    "app/serving/parts.py Parts._put": "sums_stored or sums_joined behind it",
    "app/serving/parts.py Parts.remove": "an older state, which no longer counts; sums_stored before it",
    "app/serving/saver.py Saver._store": "by Parts.put, which has the place, and Parts.remove",
    "app/serving/board.py Board._write": "counts that processes of one host share while they live",
    "app/storage/s3.py S3Storage.delete": "whoever calls it has the place",
    "app/storage/s3.py S3Storage.remove": "whoever calls it has the place",
    "worker/backbones/prepared.py move": f"{AGAIN}; its record comes last",
    "worker/backbones/prepared.py point": AGAIN,
    "worker/ingestion.py StoredDataset.tidy": "dataset_file_stored before it; the next attempt lists what is left",
    "worker/own_backbone.py _of_version": "backbone_file_stored before it, result_ready behind it",
    "worker/prepare/centre.py add": f"{AGAIN}; its record comes last",
    "worker/prepare/download.py download": AGAIN,
    "worker/prepare/sources.py _own": AGAIN,
    "worker/supervision/supervisor.py _Attempt._keep": "lease_renewed, while the child starts",
}


def reaching(folder, name, times=1):
    """A process of its own that reaches a place, with the folder as its setting."""
    code = f"from app import failpoints\nfor _ in range({times}): failpoints.reach({name!r})"
    environment = {**os.environ, failpoints.VARIABLE: str(folder)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_every_place_is_in_the_code_once():
    found = Counter(
        name
        for room in ("app", "worker")
        for path in (ROOT / room).rglob("*.py")
        for name in re.findall(r"failpoints\.reach\(([^)]*)\)", path.read_text("utf-8"))
    )
    assert found == Counter(f'"{name}"' for name in failpoints.POINTS)


def is_write(call):
    """Whether it begins or commits a transaction that writes, changes what is in storage, or renames into place."""
    if not isinstance(call.func, ast.Attribute):
        return False
    verb, owner = call.func.attr, ast.unparse(call.func.value).rpartition(".")[2].lstrip("_")
    if verb == "write":
        return owner == "database"
    if verb in {"put", "delete", "remove"}:
        return owner in {"storage", "target", "parts"}
    if verb in {"replace", "rename"}:
        # Of a path: a text takes two arguments, a moment takes names.
        return len(call.args) == 1 and not call.keywords
    return verb == "commit" or (verb in OBJECT_STORE and owner == "client")


def unguarded(source):
    """Functions of a module that write durably and reach no place, by their names."""
    writing, reaching = set(), set()

    def look(node, names):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names = (*names, node.name)
        if isinstance(node, ast.Call):
            if is_write(node):
                writing.add(".".join(names))
            elif ast.unparse(node.func) == "failpoints.reach":
                reaching.add(".".join(names))
        for child in ast.iter_child_nodes(node):
            look(child, names)

    look(ast.parse(source), ())
    return writing - reaching


def test_every_durable_write_has_a_place_in_its_function():
    found = {
        f"{path.relative_to(ROOT)} {name}"
        for room in ("app", "worker")
        for path in (ROOT / room).rglob("*.py")
        for name in unguarded(path.read_text("utf-8"))
    }
    assert found - WITHOUT.keys() == set(), "expected failpoints.reach in the functions that write; found none"
    assert WITHOUT.keys() - found == set(), "expected no exception that nothing needs; found some"


@pytest.mark.parametrize(
    "write",
    [
        "with context.database.write() as session: session.add(row)",
        "session.commit()",
        "self._storage.put(key, path)",
        "storage.delete(prefix)",
        "context.storage.remove(stored)",
        "part.replace(path)",
        "draft.rename(place)",
        "self.client.put_object(Bucket=bucket, Key=key, Body=data)",
    ],
)
def test_a_new_write_without_a_place_is_found(write):
    source = f"class Shelf:\n    def keep(self):\n        {write}\n"
    assert unguarded(source) == {"Shelf.keep"}
    assert unguarded(f"{source}        failpoints.reach('kept')\n") == set()
    # Nor does the place of another function do.
    assert unguarded(f"{source}    def other(self):\n        failpoints.reach('kept')\n") == {"Shelf.keep"}


@pytest.mark.parametrize(
    "read",
    [
        "database.read()",
        "storage.fetch(key)",
        "file.write(data)",
        "names.remove(name)",
        "text.replace('a', 'b')",
        "moment.replace(tzinfo=UTC)",
    ],
)
def test_what_is_no_durable_write_needs_none(read):
    assert unguarded(f"def look():\n    {read}\n") == set()


def test_an_armed_place_kills_one_process_once(tmp_path):
    (tmp_path / "claim_commit").write_text("kill")
    assert reaching(tmp_path, "claim_committed").returncode == 0
    assert reaching(tmp_path, "claim_commit").returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["claim_commit.reached"]
    assert reaching(tmp_path, "claim_commit", times=2).returncode == 0


def test_a_full_disk_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(failpoints, "_folder", str(tmp_path))
    (tmp_path / "part_stored").write_text("full")
    with pytest.raises(OSError, match="No space left"):
        failpoints.reach("part_stored")
    failpoints.reach("part_stored")


def test_what_cannot_be_read_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(failpoints, "_folder", str(tmp_path))
    (tmp_path / "part_stored").write_text("explode")
    with pytest.raises(ValueError, match="expected kill, full, sleep SECONDS or take BYTES; found 'explode'"):
        failpoints.reach("part_stored")


def test_memory_is_taken_once(tmp_path, monkeypatch):
    monkeypatch.setattr(failpoints, "_folder", str(tmp_path))
    (tmp_path / "part_stored").write_text(f"take {1 << 60}")
    with pytest.raises(MemoryError):
        failpoints.reach("part_stored")
    failpoints.reach("part_stored")
