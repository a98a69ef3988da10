"""Elements of HTML and SVG, escaped by construction.

>>> render(element("p", "a < b", element("br"), class_="note", data_n=2))
'<p class="note" data-n="2">a &lt; b<br></p>'
"""

from typing import Any
from xml.etree.ElementTree import Element, tostring

from cnnlab.report.printable import printable

Node = Element | str


def element(tag: str, *children: Node, **attributes: Any) -> Element:
    """An element; `class_` and `stroke_width` are the attributes class and stroke-width."""
    made = Element(
        tag, {key.rstrip("_").replace("_", "-"): _text(value) for key, value in attributes.items()}
    )
    for child in children:
        if isinstance(child, Element):
            made.append(child)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + printable(child)
        else:
            made.text = (made.text or "") + printable(child)
    return made


def render(root: Element) -> str:
    return tostring(root, encoding="unicode", method="html")


def _text(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else printable(str(value))
