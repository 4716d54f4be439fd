"""Test accuracy of the linear probe over five splits, through the real pipeline.

    python benchmarks/quality.py [--data ../shared/data] [--seeds 5]

stamps_photos (Debian package tuxpaint-stamps-default) and emoji_google (npm package emoji-datasource-google); sets that
are not found are named. The seed makes the dataset's split. Prints one JSON document.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks._pipeline import run, stored

BACKBONE = "timm/tf_efficientnet_lite0"
GOALS = {"stamps_photos": 0.85, "emoji_google": 0.70}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    document: dict[str, Any] = {"not_found": []}
    for name, goal in GOALS.items():
        archive = given.data / f"{name}.zip"
        if not archive.is_file():
            document["not_found"].append(name)
            continue
        with tempfile.TemporaryDirectory() as folder:
            accuracies = []
            for seed in range(given.seeds):
                dataset = stored(Path(folder), archive, f"ds_{seed}", seed)
                done = run(Path(folder), dataset, {"method": "linear_probe"}, BACKBONE)
                accuracies.append(done["metrics"]["test_accuracy"])
        mean = statistics.mean(accuracies)
        document[name] = {
            "accuracies": [round(one, 4) for one in accuracies],
            "mean": round(mean, 4),
            "deviation": round(statistics.stdev(accuracies), 4) if len(accuracies) > 1 else None,
            "goal": goal,
            "meets_goal": mean >= goal,
        }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
