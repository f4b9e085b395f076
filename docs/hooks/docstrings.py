"""What griffe, which reads the docstrings, needs to be told of this package.

The sections that the Google style does not know are shown like the others, and a function that has
the name of its module is found in the package that exports it.
"""

import inspect
import re
from typing import Any

import griffe

_TEXTS = ("Input shape", "Output shape", "Returns of a call", "Source")
_TITLE = re.compile(
    rf"^({'|'.join(_TEXTS)}|Call arguments|Example|Returns):[ ]*(.*)$", re.MULTILINE
)
_FIRST_LINE = "."
_ITEM = re.compile(r"^(\*{0,2}\w+(?:, \w+)*): (.*)", re.DOTALL)


class Docstrings(griffe.Extension):
    """Parse each docstring in parts: those sections here, and what is between by griffe."""

    def on_package(self, *, pkg: griffe.Module, loader: Any, **kwargs: Any) -> None:
        """Parse all docstrings of a package, then put its functions in the place of modules."""
        modules = _modules(pkg)
        for module in modules:
            _parse(module)
            for alias in module.members.values():
                _resolved(alias)  # while the paths of all modules still lead to them
        for module in modules:
            for name in module.exports or ():
                _export(module, str(name))


def _modules(module: griffe.Module) -> list[griffe.Module]:
    inner = [one for one in module.modules.values() if not one.is_alias]
    return [module, *(found for one in inner for found in _modules(one))]


def _export(module: griffe.Module, name: str) -> None:
    """Let a package's name be what it imports, as in Python, not the module of that name."""
    found = member = _resolved(module.members.get(name)) if name in module.imports else None
    while member is not None and member.is_module:
        member = _resolved(member.members.get(name))
    if member is not None and member is not found:
        module.members[name] = griffe.Alias(name, member, parent=module)


def _resolved(member: Any) -> griffe.Object | None:
    try:
        return member.final_target if member is not None and member.is_alias else member
    except (griffe.AliasResolutionError, griffe.CyclicAliasError):
        return None  # of another package


def _parse(obj: griffe.Object) -> None:
    """Parse the docstrings of an object and its members, but for those in other modules."""
    if obj.docstring is not None:
        # What griffe would compute when it is first read.
        obj.docstring.__dict__["parsed"] = _sections(obj.docstring)
    for member in obj.members.values():
        if not member.is_alias and not member.is_module:
            _parse(member)


def _sections(docstring: griffe.Docstring) -> list[griffe.DocstringSection]:
    sections, text, at = [], docstring.value, 0
    for title in _TITLE.finditer(text):
        if title.start() < at:
            continue
        sections += _by_griffe(docstring, text[at : title.start()])
        at = _end(text, title)
        body = inspect.cleandoc(f"{title[2]}\n{text[title.end() : at]}").strip()
        sections.append(_section(docstring, title[1], body))
    return sections + _by_griffe(docstring, text[at:])


def _end(text: str, title: re.Match[str]) -> int:
    """Where a section ends: before the first line that is neither empty nor part of it."""
    start = title.end()
    if title[2]:
        end = re.search(r"\n\n", text[start:])  # of a paragraph that begins beside the title
    elif text.startswith("\n>>>", start):
        end = None  # an example without indentation is the last section
    else:
        end = re.search(r"^(?=\S)", text[start:], re.MULTILINE)
    return len(text) if end is None else start + end.start()


def _section(docstring: griffe.Docstring, title: str, body: str) -> griffe.DocstringSection:
    if title == "Example":
        return griffe.DocstringSectionExamples(
            [(griffe.DocstringSectionKind.examples, body)], title="Example:"
        )
    found = [_ITEM.match(item) for item in re.split(r"\n(?=\S)", body)]
    if title == "Call arguments" and all(found):
        items = [
            griffe.DocstringParameter(item[1], description=inspect.cleandoc(item[2]))
            for item in found
            if item is not None
        ]
        return griffe.DocstringSectionParameters(items, title="Call arguments:")
    if title == "Returns":
        annotation = getattr(docstring.parent, "returns", None)
        value = griffe.DocstringReturn(name="", annotation=annotation, description=body)
        return griffe.DocstringSectionReturns([value])
    return griffe.DocstringSectionText(
        f'<p><span class="doc-section-title">{title}:</span></p>\n\n{body}'
    )


def _by_griffe(docstring: griffe.Docstring, text: str) -> list[griffe.DocstringSection]:
    if not text.strip():
        return []
    options = dict(docstring.parser_options)
    if isinstance(docstring.parent, griffe.Class) and "__init__" not in docstring.parent.members:
        # The arguments are those of a class of Keras, whose types are not known here.
        options |= {"warn_missing_types": False, "warn_unknown_params": False}
    part = griffe.Docstring(
        # A title in the first line would have its indented block moved to the margin.
        f"{_FIRST_LINE}\n\n{text.strip(chr(10))}",
        lineno=docstring.lineno,
        parent=docstring.parent,
        parser=docstring.parser,
        parser_options=options,
    )
    first, *others = part.parsed
    first.value = first.value.removeprefix(_FIRST_LINE).strip()
    sections = [first, *others] if first.value else others
    for section in sections:
        if section.kind is griffe.DocstringSectionKind.parameters:
            for parameter in section.value:
                if parameter.name.startswith("*"):
                    parameter.default = None  # rather than {}
    return sections
