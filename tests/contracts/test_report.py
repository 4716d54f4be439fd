"""The report, its page and its documentation name the same things."""

import ast
import re
from pathlib import Path

from tests.app.pages.documents import report as document

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "report.md"
MODULES = ("report", "adaptation", "unseen")
# Parts that a table of names adds: `dict.fromkeys(BESIDE)`.
TABLES = {"BESIDE"}


def written(module: str) -> set[str]:
    """Top-level keys of the document that a module writes, and of what the supplement adds to it."""
    found: set[str] = set()
    for file in (f"reports/{module}.py", "evaluate/supplement.py"):
        tree = ast.parse((ROOT / "worker" / file).read_text())
        for node in ast.walk(tree):
            target = node.target if isinstance(node, ast.AnnAssign) else None
            targets = node.targets if isinstance(node, ast.Assign) else [target] if target else []
            value = getattr(node, "value", None)
            for one in targets:
                told = ast.unparse(one)
                if told == "document" and isinstance(value, ast.Dict):
                    found |= {key.value for key in value.keys if isinstance(key, ast.Constant)}
                if told in TABLES and isinstance(value, ast.Tuple):
                    found |= {item.value for item in value.elts if isinstance(item, ast.Constant)}
                if match := re.fullmatch(r"document\['(\w+)'\](, .*)?", told):
                    found.add(match[1])
    return found


def headings() -> set[str]:
    return set(re.findall(r"^### `([^`]+)`$", DOCS.read_text(encoding="utf-8"), re.MULTILINE))


def test_every_key_of_a_report_is_explained() -> None:
    for module in MODULES:
        keys = written(module)
        assert {"flags", "worst_class", "metrics", "not_computed"} <= keys
        assert keys <= headings(), f"docs/report.md lacks {sorted(keys - headings())}"


def test_the_page_is_tested_with_every_key() -> None:
    lacking = headings() - document().keys() - {"measured", "forecast_skipped"}
    assert lacking == set(), f"tests/app/pages/documents.py lacks {sorted(lacking)}"


def test_every_flag_is_explained() -> None:
    source = (ROOT / "worker" / "evaluate" / "flags.py").read_text()
    codes = set(re.findall(r'code="(\w+)"', source))
    assert codes == set(re.findall(r"^\| `(\w+)` \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
