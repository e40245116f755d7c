"""HTML from values: whatever is not markup already is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(tag: str, *inside: str | Markup, **attributes: str) -> Markup:
    """Return an element; text in it and its attributes are escaped, markup in it is not.

    A trailing underscore of an attribute is dropped, others become hyphens.

    >>> element("p", "a < b ", element("b", "&"), class_='"x"')
    '<p class="&quot;x&quot;">a &lt; b <b>&amp;</b></p>'
    """
    named = (
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
    )
    return Markup(f"<{tag}{''.join(named)}>{joined(inside)}</{tag}>")


def joined(parts: Iterable[str | Markup]) -> Markup:
    """Return parts one after the other; what is not markup is escaped.

    >>> joined(["<", element("i", "x")])
    '&lt;<i>x</i>'
    """
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))
