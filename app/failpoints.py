"""Places right before and right after every durable write, where a test may end the process, fill the disk or wait.

Nothing is armed unless `GRAFT_FAILPOINTS` names a folder: then `reach(name)` looks for a file of that name in it and
takes it away, which of all processes only one manages. The file's text says what happens there, once: `kill` (kill -9
of this process), `full` (the disk is full), `take BYTES` (of memory), `sleep SECONDS`. `make chaos` arms them all, one
after the other.
"""

import errno
import os
import signal
import time
from pathlib import Path

VARIABLE = "GRAFT_FAILPOINTS"
# Of a file that was taken, beside where it lay: it says that the place was reached.
REACHED = ".reached"
POINTS = {
    # API
    "archive_received": "a multipart upload is in scratch; nothing of it is in storage",
    "archive_stored": "an archive is in storage; no row knows it",
    "weights_stored": "a backbone's file is in storage; no row knows it",
    "class_file_stored": "one file of the bundle with an added class is in storage",
    "class_stored": "the bundle with an added class is in storage; no version knows it",
    "import_file_stored": "one file of an imported bundle is in storage, or was there",
    "import_stored": "an imported bundle is in storage; no version knows it",
    "request_commit": "a request's transaction is about to be committed",
    "request_committed": "a request's transaction is committed; storage is not freed, no bell rung, no answer sent",
    "request_tidied": "storage is freed; no bell rung, no answer sent",
    "answer_found": "the answer to a request that was sent before is found; it is not sent again",
    "waste_reserved": "a place in storage is reserved; nothing is there",
    "waste_given_back": "what was reserved is not wanted after all; it is in storage",
    "waste_taken": "a sweep has claimed what is overdue; all of it is in storage",
    "waste_deleted": "what was given up is gone from storage; its row is there",
    "waste_cleared": "its row is gone; more that was given up may be there",
    "upload_taken": "a request has the right to write to an upload; nothing has come of it",
    "upload_changed": "a request that writes to an upload has changed its row; whoever asked for that does not know",
    "upload_synced": "bytes of a resumable upload are durable; its row does not say so",
    "upload_noted": "its row says how many bytes are there; the client was told nothing",
    "upload_assembled": "an upload that is all there is an object; its row does not say so",
    "upload_verified": "its sha256 is verified; its row does not say so",
    "log_stored": "a file of predictions is in storage; its log does not count it",
    "sums_stored": "sums of what was answered are in storage, beside an older state of them",
    # storage and broker
    "file_linked": "an object's bytes are in storage under a temporary name",
    "file_placed": "an object is in its place in a folder",
    "object_sent": "an object is in its place in a bucket",
    "object_fetched": "a local copy of an object is there under a temporary name",
    "bell_written": "a message of the filesystem broker is there under a temporary name",
    # supervisor and worker
    "worker_shown": "the worker's row says that it lives",
    "claim_commit": "a claimed job is about to be committed",
    "claim_committed": "a job is claimed; nothing computes it",
    "events_commit": "events of the runner are about to be committed",
    "events_committed": "they are committed",
    "lease_renewed": "a lease is renewed",
    "outcome_commit": "an outcome, with all that it publishes, is about to be committed",
    "outcome_committed": "it is committed; storage is not freed, no bell rung",
    "outcome_tidied": "storage is freed; no bell rung",
    "sweep_commit": "jobs of a silent worker are about to be handed back",
    "sweep_committed": "they are handed back; storage is not freed, no bell rung",
    "sums_joined": "a day's sums are in storage as one object, beside those that it is made of",
    "delivery_claimed": "deliveries of webhooks are claimed; nothing is sent",
    "delivery_sent": "a delivery was answered; its row does not say so",
    "delivery_concluded": "its row says so",
    "rows_rewritten": "the living rows of a chunk of features are in storage, beside the chunk that they are of",
    "orphan_removed": "an object that no row names is gone; others that nobody needs may be there",
    "rows_half": "they are in storage; what they are rows of is not",
    "collection_asked": "the command line's collection has a row; nothing was looked at",
    "collection_begun": "a worker's collection has one",
    "late_noted": "what an attempt has stored after its lease is given up; it is in storage",
    "worker_left": "the row of a worker that was told to end is gone",
    "log_expired": "a day of predictions that was kept long enough is gone; others may be there",
    "sums_expired": "a day of sums that was, or is of no version, is gone; others may be there",
    "rows_expired": "rows that were kept long enough are gone; files that were are there",
    "checkpoints_noted": "checkpoints that no attempt will read are given up; they are in storage",
    "uploads_expired": "rows of uploads that nobody went on with are gone; their bytes are there",
    "upload_discarded": "the bytes of one are gone; those of others may be there",
    "stray_removed": "bytes that no upload knows of are gone; others may be there",
    "collection_noted": "a collection's row says how it has ended",
    # runner
    "dataset_file_stored": "one file of a dataset is in storage",
    "features_half": "features are in storage; what they are features of is not",
    "features_stored": "a chunk of features is in storage",
    "part_stored": "a finished part of a study is in storage",
    "chunk_stored": "a chunk of predictions is in storage",
    "predictions_stored": "the file of all predictions is in storage",
    "checkpoint_written": "a new checkpoint is in storage beside the older one",
    "checkpoint_stored": "the older one is gone",
    "head_stored": "a trained head of an adaptation is in storage",
    "alignment_file_stored": "one file of an alignment is in storage",
    "moving_graph_shared": "an alignment's files are in storage, and the graph of the backbone that it takes",
    "thumbnails_stored": "the pictures of advice are in storage",
    "backbone_file_stored": "one file of an own backbone is in storage",
    "graph_shared": "a backbone's graph is in storage, for all models on it",
    "bundle_file_stored": "one file of a bundle is in storage",
    "bundle_stored": "a bundle is whole in storage",
    "result_ready": "a runner has finished, and its supervisor does not know",
    "result_told": "its supervisor was told",
}  # fmt: skip

_folder = os.environ.get(VARIABLE)


def reach(name: str) -> None:
    """Marks a place in the code; costs a comparison unless a folder is named.

    Raises:
        OSError: no space left, where the armed file says `full`.
        MemoryError: so many bytes cannot be had, where it says `take`.
    """
    if _folder is None:
        return
    armed = Path(_folder) / name
    taken = armed.with_suffix(REACHED)
    try:
        armed.rename(taken)
    except FileNotFoundError:
        return
    what, *more = taken.read_text().split()
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    elif what == "sleep":
        time.sleep(float(more[0]))
    elif what == "take":
        bytearray(int(more[0]))
    else:
        raise ValueError(f"{armed}: expected kill, full, sleep SECONDS or take BYTES; found {what!r}")
