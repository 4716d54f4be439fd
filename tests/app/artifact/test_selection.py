"""What verdicts stand on, as it is kept."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from app.artifact import selection
from app.artifact.selection import SelectionPredictions

FOUND = SelectionPredictions(
    ids=["s1", "s2", "s3"],
    labels=["cat", "dög", "cat"],
    splits=["train", "val", "train"],
    named={"transfer": ["cat", "cat", "cat"], "scratch": [None, "dög", None]},
    what="out of fold, 5 folds",
    optimism="the strength was chosen by these items",
)


@pytest.mark.parametrize("optimism", [None, FOUND.optimism])
def test_what_was_written_is_read(tmp_path, optimism):
    found = replace(FOUND, optimism=optimism)
    selection.write(tmp_path / "s.parquet", found)
    assert selection.read(tmp_path / "s.parquet") == found


def test_the_table_is_plain_to_whoever_opens_it(tmp_path):
    selection.write(tmp_path / "s.parquet", FOUND)
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.column_names == ["id", "label", "split", "predicted_transfer", "predicted_scratch"]
    assert table["predicted_scratch"].to_pylist() == [None, "dög", None]


@pytest.mark.parametrize(
    "changes", [{"labels": ["cat"]}, {"named": {"transfer": ["cat"]}}, {"named": {"frozen": ["cat", "cat", "cat"]}}]
)
def test_a_table_that_tells_no_verdict_is_refused(tmp_path, changes):
    with pytest.raises(ValueError, match="predicted_transfer"):
        selection.write(tmp_path / "s.parquet", replace(FOUND, **changes))
    assert not (tmp_path / "s.parquet").exists()
