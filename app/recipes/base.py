"""What all recipes share."""

from typing import ClassVar

from pydantic import BaseModel

from app.bodies import BODY


class Recipe(BaseModel):
    """What all recipes share: frozen, and an unknown field is an error."""

    model_config = BODY

    paper: ClassVar[str]
    summary: ClassVar[str]
    # When to use it, and what it costs to make and to serve.
    when: ClassVar[str]
    cost: ClassVar[str]
    needs_torch: ClassVar[bool]
    # Whether a job needs a dataset to work on; whoever does not says why it may be absent.
    needs_dataset: ClassVar[bool] = True
