"""Formulas as MathML, written when the site is built: browsers draw it without any script."""

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[\[(](?P<latex>.*?)\\[\])]</(?P=tag)>', re.DOTALL
)


def on_page_content(content: str, page: Any, config: Any, files: Any) -> str:
    """Convert the formulas that the extension arithmatex has marked."""
    return _FORMULA.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    display = "block" if found["tag"] == "div" else "inline"
    latex = html.unescape(found["latex"]).strip()
    formula = convert(latex, display=display)
    if "\\" in formula:  # a command that the converter does not know
        raise PluginError(f"cannot be converted to MathML: {latex}")
    return f'<{found["tag"]} class="formula">{formula}</{found["tag"]}>'
