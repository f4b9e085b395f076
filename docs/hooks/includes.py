"""Pages that take text and code from elsewhere in the repository, so that it is written once.

A line of a page that reads

    <!-- include: README.md ## Boundaries -->
    <!-- include: CONTRIBUTING.md -->
    <!-- include: examples/train_nuclei.py -->
    <!-- include: examples/train_nuclei.py kept_for_updates -->

becomes what follows that heading, the whole text, the whole script, or the function of that name.
Links to files that are pages here lead to these; of other links between files the text remains.
"""

import ast
import posixpath
import re
import textwrap
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "examples/digits.py": "tutorials/digits.md",
    "examples/litert/segment.py": "tutorials/litert.md",
    "examples/serving": "tutorials/serving.md",
    "examples/notebooks/README.md": "tutorials/notebooks.md",
    "examples/serving/README.md": "tutorials/serving.md",
    "examples/train_boundaries.py": "tutorials/train_boundaries.md",
    "examples/train_nuclei.py": "tutorials/train_nuclei.md",
    "examples/train_on_a_folder.py": "tutorials/train_on_a_folder.md",
    "examples/tutorials/gradient_share.py": "tutorials/gradient.md",
    "examples/tutorials/gradient_toy.py": "tutorials/gradient.md",
    "examples/tutorials/margins.py": "tutorials/margins.md",
    "examples/tutorials/mean_shift.py": "tutorials/mean_shift.md",
    "saved_models/boundaries/README.md": "presets/boundaries.md",
    "saved_models/digits/README.md": "presets/digits.md",
    "saved_models/digits_instances/README.md": "presets/digits_instances.md",
    "saved_models/nuclei/README.md": "presets/nuclei.md",
    "saved_models/objects/README.md": "presets/objects.md",
}
"""The pages that show these files."""

PICTURES = {
    path.relative_to(ROOT).as_posix(): f"pictures/{path.name}"
    for path in sorted((ROOT / "examples" / "pictures").glob("*.png"))
}
"""Where the site has these pictures."""

_INCLUDE = re.compile(r"^( *)<!-- include: (\S+?)(?: (.+?))? -->$", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_FILE_NAME = re.compile(rf"(?<!\[)`({'|'.join(map(re.escape, PAGES))})`")


def on_files(files: Any, config: Any) -> Any:
    """Add the pictures of the examples."""
    for source, name in PICTURES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put in what a page includes."""
    uri = page.file.src_uri
    return _INCLUDE.sub(
        lambda found: textwrap.indent(_included(found[2], found[3], uri), found[1]), markdown
    )


def _included(name: str, part: str | None, page: str) -> str:
    try:
        text = (ROOT / name).read_text(encoding="utf-8")
        if name.endswith(".md"):
            return _relinked(_section(text, part) if part else text, name, page)
        language = {".py": "python", ".c": "c"}[Path(name).suffix]
        return f"```{language}\n{_function(text, part) if part else text.strip()}\n```"
    except (KeyError, OSError, ValueError) as error:
        raise PluginError(f"{page} includes {name} {part or ''}: {error!r}") from error


def _section(text: str, heading: str) -> str:
    """What follows a heading, up to the next of its level or a higher one."""
    level = len(heading) - len(heading.lstrip("#"))
    # Lines of code that begin with # are no headings.
    hidden = _FENCE.sub(lambda found: re.sub(r"^#", " ", found[0], flags=re.MULTILINE), text)
    start = re.search(rf"^{re.escape(heading)}$", hidden, re.MULTILINE)
    if start is None:
        raise ValueError(f"there is no heading {heading!r}")
    end = re.compile(rf"^#{{1,{level}}} ", re.MULTILINE).search(hidden, start.end())
    return text[start.end() : end.start() if end else None].strip()


def _function(text: str, name: str) -> str:
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return ast.get_source_segment(text, node) or ""
    raise ValueError(f"there is no function {name!r}")


def _relinked(text: str, source: str, page: str) -> str:
    """The text with links that hold in a page."""

    def to(target: str) -> str:
        return posixpath.relpath(target, posixpath.dirname(page) or ".")

    def link(found: re.Match[str]) -> str:
        mark, label, target = found.groups()
        if "://" in target or target.startswith("#"):
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target.split("#")[0]))
        if path in PICTURES and mark:
            return f"![{label}]({to(PICTURES[path])})"
        if path in PAGES and PAGES[path] != page:
            return f"[{label}]({to(PAGES[path])})"
        return label

    def prose(text: str) -> str:
        text = _LINK.sub(link, text)
        return _FILE_NAME.sub(lambda found: f"[{found[0]}]({to(PAGES[found[1]])})", text)

    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [prose(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, prose(text[end:])])
