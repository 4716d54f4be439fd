"""Many models from one: its bundle again and again, with graphs that differ in their bytes alone."""

import shutil
from pathlib import Path

import onnx
from sqlalchemy import select

from app.artifact import bundle
from app.artifact import spec as specs
from app.db.base import new_id
from app.db.models import Model, ModelVersion
from app.db.session import Database
from app.serving.stored import fetch
from app.settings import Settings
from app.storage import FolderStorage


def publish(home: Path, base: str, names: list[str], *, own_backbones: bool) -> None:
    """A model of one version for each name.

    Args:
        home: of the service; it need not run.
        base: the model whose version 1 is copied.
        names: of the new models.
        own_backbones: whether each has a backbone's graph of its own, or all share the base's.
    """
    settings = Settings(home=home)
    storage = FolderStorage(settings.home_path / "storage")
    database = Database(settings.resolved_database_url)
    with database.write() as session:
        row = session.scalars(
            select(ModelVersion).join(Model, Model.id == ModelVersion.model_id).where(Model.name == base)
        ).one()
        for name in names:
            model = Model(id=new_id("mdl"), project_id=row.project_id, name=name, last_version=1)
            session.add(model)
            session.flush()
            prefix = f"bundles/{row.project_id}/{name}"
            written = _copy(storage, row, prefix, name, own_backbones, settings.home_path / "made")
            session.add(
                ModelVersion(
                    id=new_id("ver"), project_id=row.project_id, model_id=model.id, version=1, job_id=None,
                    prefix=prefix, spec=specs.document(written), metrics={},
                )
            )  # fmt: skip
    database.dispose()


def _copy(
    storage: FolderStorage, row: ModelVersion, prefix: str, name: str, own_backbone: bool, folder: Path
) -> specs.Spec:
    known = specs.load(storage.fetch(f"{row.prefix}/{bundle.SPEC}").read_bytes())
    folder.mkdir(exist_ok=True)
    files = dict(known.files)
    for file, item in known.files.items():
        path = fetch(storage, row.prefix, known, file)
        if file == bundle.HEAD or (file == bundle.BACKBONE and own_backbone):
            path = _renamed(path, folder / file, name)
            files[file] = bundle.entry(path)
        elif item.key is not None:
            continue
        storage.put(f"{prefix}/{file}", path)
    written = specs.Spec.model_validate({**dict(known), "files": files})
    (folder / bundle.SPEC).write_bytes(specs.dump(written))
    storage.put(f"{prefix}/{bundle.SPEC}", folder / bundle.SPEC)
    shutil.rmtree(folder)
    return written


def _renamed(source: Path, target: Path, name: str) -> Path:
    model = onnx.load(source)
    model.doc_string = name
    onnx.save(model, target)
    return target
