"""Everything that can be wrong with an upload: one literal table of codes, and how each reads."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Text:
    """How a code reads; `message` is a template whose fields the finder fills in."""

    severity: Severity
    message: str
    fix: str


PROBLEMS: dict[str, Text] = {
    # The upload as a whole
    "not_an_archive": Text(
        "error",
        "expected a zip, tar or tar.gz archive, or a Parquet file; found {found}",
        "pack the images into a zip with one folder per class",
    ),
    "empty_archive": Text(
        "error",
        "expected images; found an archive without any file",
        "pack the images into the archive, one folder per class",
    ),
    "encrypted": Text(
        "error", "expected readable members; found an encrypted one", "pack the archive again without a password"
    ),
    "unsafe_path": Text(
        "error",
        "expected member names inside the archive; found {found}",
        "pack the folder from inside, so that every name, or path of an image in Parquet, is relative and without '..'",
    ),
    "unsafe_link": Text(
        "error",
        "expected regular files and folders; found {found}",
        "pack the files that the links point at (zip without -y, tar with -h)",
    ),
    "bomb": Text(
        "error",
        "expected at most {limit}; found {found}",
        "send fewer or smaller files; more can be added as a child dataset (`base`)",
    ),
    "opening_failed": Text(
        "error",
        "expected an upload that opens; found that the process that opens it ended ({found})",
        "pack the files again as a zip with one folder per class",
    ),
    "format_mismatch": Text(
        "error",
        "expected {expected}; found {found}",
        "leave the format out, so that it is detected, or send the format that was named",
    ),
    "coco_unsupported": Text(
        "error",
        "expected class folders, a manifest or Parquet; found COCO annotations, which belong to detection",
        "send class folders, or a CSV with the columns file and label; send format=folders where folders are the "
        "classes",
    ),
    # Manifests and Parquet
    "manifest_columns": Text(
        "error",
        "expected the columns file and label (or file and several label columns); found {found}",
        "name the columns file and label in the first line of the CSV, or in every object of the JSONL; "
        "name several labels label_..., or send task=multi_task; send format=folders where folders are the classes",
    ),
    "manifest_broken": Text(
        "error", "expected UTF-8 text in CSV or JSON lines; found {found}", "write the manifest again as UTF-8"
    ),
    "reference_outside": Text(
        "error",
        "expected the name of a file in the same upload; found {found}",
        "put the file into the upload, and write its name relative to the manifest",
    ),
    "parquet_columns": Text(
        "error",
        "expected a column image (struct of bytes and path, or bytes) and a column label; found {found}",
        "write the file with the library datasets, with an Image feature and a ClassLabel feature",
    ),
    "parquet_broken": Text("error", "expected a readable Parquet file; found {found}", "write the file again"),
    # Samples as a whole
    "nothing_decodable": Text(
        "error",
        "expected images; found {num} files and not one good image among them",
        "send JPEG, PNG, WEBP, GIF, BMP or TIFF files; the other problems say what is wrong with each",
    ),
    "no_labels": Text(
        "error",
        "expected a label for every image, for the task {task}; found images without labels",
        "put the images into one folder per class, or send format=unlabelled",
    ),
    "one_class": Text(
        "error",
        "expected at least two classes; found {found}",
        "put the images into one folder per class, or send format=unlabelled for images without labels",
    ),
    "class_too_small": Text(
        "error",
        "expected at least two good images in every class; found {num} in {name!r}",
        "add images to the class, or leave the class out",
    ),
    "too_many_labels": Text(
        "error",
        "expected at most {limit}; found {found}",
        "leave out classes that few images have, send fewer images, or send one class for each image",
    ),
    "task_mismatch": Text("error", "expected {expected}; found {found}", "name the task that fits the labels"),
    # Child datasets
    "unknown_sample": Text(
        "error", "expected ids of samples in the base dataset; found {found}", "list the base's samples for their ids"
    ),
    "relabel_invalid": Text("error", "expected {expected}; found {found}", "give another label"),
    "base_mismatch": Text(
        "error", "expected {expected}; found {found}", "send samples of the base's kind, or make a dataset of its own"
    ),
    "already_in_base": Text(
        "warning",
        "expected a new sample; found one that the base dataset has under the same name",
        "nothing: it is kept once",
    ),
    # One file
    "image_unreadable": Text("warning", "{found}", "save the image again, or leave it out"),
    "image_truncated": Text("warning", "{found}", "copy the whole file again"),
    "image_too_large": Text("warning", "{found}", "make the image smaller"),
    "image_unsupported": Text("warning", "{found}", "change the image as said, or leave it out"),
    "decoder_crashed": Text(
        "warning",
        "expected an image that decodes; found one that ends the decoding process ({found})",
        "save the image again, or leave it out",
    ),
    "decode_timed_out": Text(
        "warning",
        "expected an image that decodes within {limit} s; found one that does not",
        "save the image again at a smaller size, or leave it out",
    ),
    "decode_out_of_memory": Text(
        "warning",
        "expected an image that decodes within {limit} MB; found one that does not",
        "save the image again at a smaller size, or with 8 bits per channel",
    ),
    "entry_unreadable": Text(
        "warning", "expected a member that unpacks; found {found}", "pack the archive again with zip or tar"
    ),
    "entry_too_large": Text(
        "warning", "expected at most {limit} bytes in one file; found {found}", "make the file smaller or leave it out"
    ),
    "not_an_image": Text(
        "warning", "expected images; found a {found} file, which is left out", "nothing, if it is not an image"
    ),
    "no_class": Text(
        "warning",
        "expected the image inside a class folder; found it outside, so it is left out",
        "move the image into the folder of its class",
    ),
    "nested_folders": Text(
        "warning",
        "expected the images of a class directly in its folder; found folders below {name!r}, counted as the class",
        "nothing, if the folders below a class folder are no classes",
    ),
    "name_encoding": Text(
        "warning",
        "expected a name in UTF-8; found other bytes, read as code page 437",
        "pack the archive again with a tool that writes UTF-8 names",
    ),
    "duplicate_name": Text(
        "warning", "expected each name once; found it again, and the first is kept", "rename one of the two files"
    ),
    "hidden_ignored": Text(
        "warning",
        "expected names that do not start with a dot; found a hidden file or folder, which is left out",
        "rename it, if it belongs to the data",
    ),
    "labels_do_not_fit": Text(
        "error",
        "expected {expected} as label of at least one file for the task {task}; found none, for example {found}",
        "send another task, or mend the labels",
    ),
    "label_unusable": Text(
        "error",
        "expected labels of characters that can be written down; found {found}",
        "remove NUL characters and halves of surrogate pairs from the label",
    ),
    "label_too_long": Text(
        "error", "expected labels of at most {limit} characters; found {found}", "give the class a shorter name"
    ),
    "case_collision": Text(
        "warning",
        "expected names that differ in more than upper and lower case; found {found} as well",
        "rename one of the two, if they are meant to be one",
    ),
    "not_in_manifest": Text(
        "warning", "expected a row of the manifest for the image; found none, so it is left out", "add a row for it"
    ),
    "no_label_column": Text(
        "warning",
        "expected labels in a column `label`, `labels` or `label_...`, or in one of the type ClassLabel; found only "
        "{found}, so the images are taken as unlabelled",
        "rename the column that holds the labels to `label` and upload the file again, if there is one",
    ),
    "label_missing": Text(
        "warning", "expected a label; found an empty one, so the sample is left out", "write the label"
    ),
    "label_invalid": Text(
        "warning", "expected {expected}; found {found}, so the sample is left out", "write the label again"
    ),
    "split_invalid": Text(
        "warning", "expected the split train, val or test; found {found}, so the split is chosen", "correct the split"
    ),
    "column_ignored": Text(
        "warning", "expected file, label and split; found the column {found}, which is left out", "nothing"
    ),
    "text_ignored": Text(
        "warning",
        "expected a manifest with the columns file and label; found {found}, and the file is left out",
        "nothing, if it says no labels",
    ),
    "image_missing": Text(
        "warning", "expected an image in every row; found none, so the row is left out", "nothing, or add the image"
    ),
    # Samples among each other
    "duplicate": Text(
        "warning",
        "expected different pictures; found {how} {other}; both stay, in {where}",
        "leave one of the two out",
    ),
    "conflicting_labels": Text(
        "warning",
        "expected one label for one picture; found {found}",
        "correct the label, or leave one of the two out",
    ),
    "split_leak": Text(
        "warning",
        "expected a picture in one split only; found it in {found}",
        "leave one of the two out, or let the splits be chosen",
    ),
    "split_missing": Text(
        "warning",
        "expected the splits train, val and test; found no {missing}, so a part of train is taken for it",
        "nothing, or send that split as well",
    ),
    "no_test_items": Text(
        "warning",
        "expected an image to test on; found none: no class has two different pictures outside the given splits",
        "add different pictures, or send a test split; nothing is trained on a dataset that cannot be tested",
    ),
    "splits_unused": Text(
        "warning",
        "expected unlabelled images without splits; found {num} in folders or rows of train, val or test, which are "
        "left out of account: all unlabelled images are in train",
        "put class folders inside the split's folder; or rename the folders, if they are the classes",
    ),
    "small_class": Text(
        "warning", "expected {limit} or more images in a class; found {num} in {name!r}", "add images to the class"
    ),
    "class_untaught": Text(
        "warning",
        "expected images of every class outside the test split; found none of {name!r}, so nothing can learn it",
        "move some of its images to train, or leave the class out",
    ),
    "more_problems": Text(
        "warning", "expected fewer problems; found {num} more than are listed", "correct these first"
    ),
}
