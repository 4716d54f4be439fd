"""What kind of processor this is, for figures that hold on such a one only, and how much of it there is to be had."""

import platform
import time
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# Of processor time: long enough that whoever waits for a processor has had a turn, short beside any job.
PROBE_SECONDS = 0.05
# Instructions that multiply and add 8-bit numbers: without one of them 8 bits may be no faster than floating point.
DOT_PRODUCTS = ("amx_int8", "avx512_vnni", "avx_vnni", "asimddp", "i8mm")


def describe(cpuinfo: Path = CPUINFO) -> str:
    """Name, and what of DOT_PRODUCTS it has."""
    fields = _fields(cpuinfo)
    name = fields.get("model name") or platform.processor() or platform.machine()
    return f"{name} ({', '.join(dot_products(cpuinfo)) or 'no instructions for 8-bit products known'})"


def dot_products(cpuinfo: Path = CPUINFO) -> list[str]:
    """What of DOT_PRODUCTS it has; nothing where the system does not tell."""
    fields = _fields(cpuinfo)
    words = fields.get("flags", fields.get("Features", "")).split()
    return [name for name in DOT_PRODUCTS if name in words]


def slowness() -> float:
    """How many times as long as its own processor time a computation takes now; 1 where nobody else computes."""
    began, used = time.monotonic(), time.thread_time()
    while (own := time.thread_time() - used) < PROBE_SECONDS:
        pass
    return max(1.0, (time.monotonic() - began) / own)


def _fields(cpuinfo: Path) -> dict[str, str]:
    text = cpuinfo.read_text("utf-8", "replace") if cpuinfo.is_file() else ""
    lines = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in lines if value}
