"""A worker's context in this process, and the jobs that tests give it."""

import os
import signal
import threading

from app.db.models import Dataset, Job
from app.queue import Bell, make_celery
from app.services import datasets, jobs, transfers, uploads
from tests import factories, processes
from worker.supervision import supervisor
from worker.supervision.worker_context import WorkerContext


class Bench:
    """One worker's context, and the jobs that it is given."""

    def __init__(self, settings, database, storage):
        self.settings, self.database, self.storage = settings, database, storage
        self.home = settings.home_path
        self.context = WorkerContext(
            settings=settings, database=database, storage=storage, bell=Bell(make_celery(settings)), worker_id="w1",
            queues=("cpu",), stopping=threading.Event(), slots=threading.Semaphore(2),
        )  # fmt: skip

    def upload(self, files, name="colours"):
        """A dataset that waits for its ingestion; (dataset, job)."""
        with self.database.write() as session:
            dataset_id = factories.new_id("ds")
            archive = self.home / f"{dataset_id}.zip"
            archive.write_bytes(files if isinstance(files, bytes) else factories.pack(files))
            key = uploads.incoming("default", dataset_id)
            self.storage.put(key, archive)
            archive.unlink()
            row = datasets.create(session, "default", dataset_id, datasets.NewDataset(name, key, "a.zip"))
            return row.id, row.job_id

    def transfer(self, dataset_id, model="colours", **changes):
        with self.database.write() as session:
            wish = transfers.Wish(
                dataset_id=dataset_id, backbone=factories.BACKBONE, recipe={"method": "linear_probe"}, model=model,
                seed=0, report="fast", depends_on=(), allow_label_change=False,
            )  # fmt: skip
            return transfers.create(session, "default", wish, False).id

    def run(self):
        supervisor.run_next(self.context)

    def start(self):
        """Supervises in a thread, as the worker does."""
        thread = threading.Thread(target=self.run)
        thread.start()
        return thread

    def job(self, job_id):
        with self.database.read() as session:
            return session.get_one(Job, job_id)

    def dataset(self, dataset_id):
        with self.database.read() as session:
            return session.get_one(Dataset, dataset_id)

    def log(self, job_id):
        with self.database.read() as session:
            return [event.message for event in jobs.events(session, job_id, 0, 1000)[0]]

    def freeze(self, job_id, but=0):
        """The job's runner, stopped in mid-work."""
        found = processes.runner(self.home, job_id, but)
        os.kill(found.pid, signal.SIGSTOP)
        return found


COLOURS = {name: factories.COLOURS[name] for name in ("red", "blue")}


def change(bench, **settings):
    """The same worker with other settings."""
    return Bench(bench.settings.model_copy(update=settings), bench.database, bench.storage)
