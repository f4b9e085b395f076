"""Links from the names of public objects in the text to their entries in the API reference."""

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1]
PACKAGE = DOCS.parent / "keras_rpe"

_NOT_PUBLIC = ("presets",)  # its names are those of `models`
METHODS = {
    name: f"keras_rpe.models.{owner}.{name}"
    for owner, names in {
        "BoundaryDetector": ("predict_boundaries",),
        "InstanceSegmenter": (
            "from_preset",
            "optimize_thresholds",
            "predict_instances",
            "save_to_preset",
        ),
        "ObjectProposer": ("calibrate", "predict_proposals"),
        "SemanticSegmenter": ("predict_classes",),
    }.items()
    for name in names
}
"""Methods whose names stand for themselves in the text."""

# Text between these stays as it is.
_APART = re.compile(r"(<(?P<tag>pre|a|autoref|h[1-6])[ >].*?</(?P=tag)>)", re.DOTALL)
_NAME = re.compile(r"<code>([A-Za-z_][\w.]*)(\(\))?</code>")


def public_names() -> dict[str, str]:
    """The full names of all public objects, by each of the names that a text may use."""
    names = dict(METHODS)
    ambiguous = set()
    for path in sorted([*PACKAGE.rglob("__init__.py"), PACKAGE / "margins.py"]):
        if path.parent.name in _NOT_PUBLIC:
            continue
        place = path.parent if path.stem == "__init__" else path.with_suffix("")
        module = ".".join(place.relative_to(PACKAGE.parent).parts)
        for name in exported(path):
            full = f"{module}.{name}"
            short = full.removeprefix("keras_rpe.")
            names |= {full: full, short: full}
            # Words such as `digits` are mostly other things.
            if name != name.lower() or "_" in name:
                ambiguous |= {name} & names.keys()
                names[name] = full
    return {name: full for name, full in names.items() if name not in ambiguous}


def exported(path: Path) -> list[str]:
    """The names in `__all__` of a module, but for its version and submodules."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return [
                name
                for name in ast.literal_eval(node.value)
                if name not in ("__version__", "margins")
                and not (path.parent / name / "__init__.py").exists()
            ]
    return []


_NAMES = public_names()


def on_page_content(content: str, page: Any, config: Any, files: Any) -> str:
    """Link the names in code spans."""
    folder = posixpath.dirname(page.url) or "."

    def linked(found: re.Match[str]) -> str:
        name = found[1]
        module = DOCS / "api" / f"{name.rpartition('.')[2]}.md"
        if name.startswith("keras_rpe.") and module.exists():
            href = posixpath.relpath(f"api/{module.stem}.html", folder)
            return f'<a href="{href}">{found[0]}</a>'
        full = _NAMES.get(name)
        if full is None:
            owner, _, member = name.rpartition(".")
            full = f"{_NAMES[owner]}.{member}" if owner in _NAMES else None
        if full is None:
            return found[0]
        return f'<autoref identifier="{full}" optional>{found[0]}</autoref>'

    parts = _APART.split(content)
    # Of three parts, the first is text, the second what stays, the third its tag.
    parts[::3] = [_NAME.sub(linked, text) for text in parts[::3]]
    del parts[2::3]
    return "".join(parts)
