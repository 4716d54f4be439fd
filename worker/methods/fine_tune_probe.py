"""What a fine-tuning ends with where nothing is trained: the linear probe, and a flag that says so. No torch.

Either training gained nothing, or there is no time for an epoch, or no class has a picture that can be held out and
leave others behind, so that nothing could judge a training. The probe is where training would have begun. It is also
the frozen baseline, so that one fit is enough.
"""

from dataclasses import replace

from app.recipes import FineTune, LinearProbe
from worker.contract.candidate import Candidate
from worker.contract.outcome import Decision
from worker.contract.task import Task
from worker.methods import linear_probe

TOO_FEW = "no class has 3 pictures outside the test split, so that none can be held out to judge a training by"
NO_TIME = "no time left"


def candidate(recipe: FineTune, task: Task, ended: str) -> Candidate:
    """The probe as what the recipe gives.

    Args:
        recipe: of the job.
        task: the data.
        ended: why nothing is trained.
    """
    probe = linear_probe.run(LinearProbe(), task)
    told = {"scope": recipe.scope, "epochs": 0, "ended": ended, "served": f"the frozen backbone: {ended}"}
    return replace(
        probe,
        method=recipe.method,
        name=f"fine_tune ({recipe.scope}, nothing trained): {probe.name}",
        details=probe.details | told | ({"to_train": "add images"} if ended == TOO_FEW else {}),
    )


def refitted(task: Task, trained: Candidate) -> Candidate:
    """The probe that a training did not improve on, learned from the hold-out as well: nobody needs it any more.

    Args:
        task: the data.
        trained: what the training gave, the probe of a part; what is told of it stays.
    """
    probe = linear_probe.run(LinearProbe(), task)
    return replace(
        probe,
        method=trained.method,
        name=trained.name,
        extraction=trained.extraction,
        seconds=trained.seconds + probe.seconds,
        details=trained.details | {"head": f"{probe.name}, learned from all images outside the test split"},
    )


def skipped() -> Decision:
    """That nothing could be held out."""
    return Decision("training", "skipped", TOO_FEW)
