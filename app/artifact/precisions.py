"""In which precisions the backbone of a version may answer: floating point, and graphs that were judged beside it."""

from typing import Literal

from pydantic import BaseModel, Field

from app.artifact.fields import STRICT, Count, Text

Second = Literal["int8", "fp16"]
Precision = Literal["fp32", "int8", "fp16"]
FLOAT: Literal["fp32"] = "fp32"
INT8: Literal["int8"] = "int8"
FP16: Literal["fp16"] = "fp16"
SECOND: tuple[Second, ...] = (INT8, FP16)
# For people.
WORDS: dict[Second, str] = {INT8: "8 bits", FP16: "half precision"}


class SecondGraph(BaseModel):
    """A graph of the backbone in another precision, and what it was measured to be beside the first.

    Args:
        accuracy_change: accuracy with it minus accuracy without, on items that the head has not learned from.
        accuracy_change_low: of the 95 % interval.
        accuracy_change_high: likewise.
        num_samples: items compared.
        what: which they are, for people.
        num_calibration: training images that the ranges of its activations come from.
        size_bytes: of its file.
        float_size_bytes: of the other graph's.
        latency_ratio_alone: its time over the other's, for one image on all cores of `machine`.
        latency_ratio_batch: likewise, for a full batch on one core.
        machine: the processor that they were measured on.
    """

    model_config = STRICT

    accuracy_change: float
    accuracy_change_low: float
    accuracy_change_high: float
    num_samples: int = Field(ge=1)
    what: Text
    num_calibration: int = Field(ge=1)
    size_bytes: Count
    float_size_bytes: Count
    latency_ratio_alone: float = Field(gt=0)
    latency_ratio_batch: float = Field(gt=0)
    machine: str
