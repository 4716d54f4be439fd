"""What one upload may cost: bounds against bombs, and against a single image that eats the machine."""

from dataclasses import dataclass, field

from app import cores


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one ingestion; the defaults let 100,000 ordinary photos through.

    Args:
        max_entries: members of the archive, folders included.
        max_total_bytes: uncompressed, over all members.
        max_ratio: uncompressed / compressed over the whole archive, looked at only above 64 MB, since small drawings
            may compress any amount.
        max_entry_bytes: uncompressed, of one member.
        max_pixels: width x height of one image.
        decode_seconds: wall time that one image may take to decode.
        decode_memory_bytes: address space of one decoding process.
        num_processes: decoding processes.
        max_text_bytes: of all manifests together, or of the labels in all Parquet files.
        max_name_chars: of all names together.
        open_memory_bytes: that the process which opens the upload may take, beside its own imports.
        open_seconds: of processor time that it may take.
    """

    max_entries: int = 1_000_000
    max_total_bytes: int = 50 * 2**30
    max_ratio: float = 100.0
    max_entry_bytes: int = 256 * 2**20
    # app.artifact.preprocess has the same, and imports of half a second.
    max_pixels: int = 100_000_000
    decode_seconds: float = 30.0
    decode_memory_bytes: int = 2 * 2**30
    num_processes: int = field(default_factory=cores.usable)
    max_text_bytes: int = 128 * 2**20
    max_name_chars: int = 256 * 2**20
    open_memory_bytes: int = 3 * 2**30
    open_seconds: int = 3600
