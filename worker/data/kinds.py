"""What the end of a member's name says: text that may be a manifest, other known files, or perhaps an image."""

# Never handed to the image decoders. Everything else is, whatever its name: the bytes decide.
# fmt: off
NOT_IMAGES = frozenset({
    "7z", "arrow", "avi", "cfg", "conf", "css", "csv", "db", "doc", "docx", "feather", "flac",
    "gz", "h5", "hdf5", "htm", "html", "ini", "ipynb", "js", "json", "jsonl", "log", "mat",
    "md", "mkv", "mov", "mp3", "mp4", "ndjson", "npy", "npz", "ogg", "parquet", "pdf", "pickle",
    "pkl", "ppt", "pptx", "py", "rar", "rst", "sqlite", "svg", "tar", "tgz", "toml", "tsv",
    "txt", "wav", "webm", "xls", "xlsx", "xml", "yaml", "yml", "zip",
})
# fmt: on
MANIFESTS = frozenset({"csv", "tsv", "jsonl", "ndjson"})


def extension(path: str) -> str:
    """Lower-case, without the dot; what pathlib's suffix is, which took a seventh of the time of opening an upload."""
    stem, _, suffix = path.rpartition("/")[2].rpartition(".")
    return suffix.lower() if stem else ""
