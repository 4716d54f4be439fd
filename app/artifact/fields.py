"""What the types of a bundle's documents are made of."""

from typing import Annotated

from pydantic import ConfigDict, Field

# Frozen instances are revalidated so that a dataclass made elsewhere cannot carry a NaN into JSON, which has none.
STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, revalidate_instances="always")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
