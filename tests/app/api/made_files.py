"""Jobs that make a file, ended as their supervisor ends them."""

from app.services import attempts, outcomes


def finish(client, job_id, made, content=b"PAR1"):
    """Ends the job in success, with what it has made in storage; what is to be deleted."""
    state = client.app.state.graft
    with state.database.write() as session:
        job = attempts.claim(session, ["cpu"], "me", 60)
        assert job.id == job_id
        key = f"bundles/default/{job_id}/attempt-{job.attempt}/{made}.{job.inputs['request']['format']}"
        path = state.settings.home_path / "made"
        path.write_bytes(content)
        state.storage.put(key, path)
        return outcomes.succeed(session, job_id, "me", {"file": key, "metrics": {"num_samples": 20}})
