"""Cuts the text of a JSON array into that of its elements, without parsing them."""

from __future__ import annotations

import re

from gateway.wire.strict_json import fail, invalid

SPACE = b" \t\r\n"
COMMA, OPENING, CLOSING = ord(","), b"[{", b"]}"
# Possessive, and satisfied by the end of the text: no text is looked at again and again. A string with very many
# escapes is cut into several tokens; whatever they are taken for, an element that ends within a string is no JSON.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+){0,600000}+(?:"|\\?\Z|(?=\\))'
_SHORT_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+){0,1000}+"'
_FLAT = rb'[\[{][^\][{}"]*+(?:%b[^\][{}"]*+){0,10000}+[\]}]' % _SHORT_STRING
_TOKEN = re.compile(rb"%b|%b|[\][{},]" % (_FLAT, _STRING), re.DOTALL)
_BEGIN = re.compile(rb"[ \t\r\n]*+\[")


def is_array(text: bytes) -> bool:
    """Return whether JSON text is that of an array."""
    return _BEGIN.match(text) is not None


def cut_array(text: bytes, most: int) -> list[bytes]:
    """Return the unchanged text of each element of an array; the text is JSON if each element is.

    Raises Refused ``invalid-payload`` if there are more than ``most``, and looks no further then.
    """
    elements: list[bytes] = []
    depth, begin = 1, _begin_of(text)
    for token in _TOKEN.finditer(text, begin):
        at, end = token.span()
        char = text[at]
        if char == COMMA and depth == 1:
            elements.append(text[begin:at].strip(SPACE))
            begin = end
            if len(elements) >= most:
                fail(f"The array has more than {most} elements.")
        elif end > at + 1:
            continue
        elif char in OPENING:
            depth += 1
        elif char in CLOSING:
            depth -= 1
            if depth == 0:
                return _with_last(elements, text, begin, at)
    raise invalid("The payload is not valid JSON: the array does not end.")


def _begin_of(text: bytes) -> int:
    begin = _BEGIN.match(text)
    if begin is None:
        fail("The payload is not a JSON array.")
    return begin.end()


def _with_last(elements: list[bytes], text: bytes, begin: int, at: int) -> list[bytes]:
    """Return the elements with the last one, which ends before the bracket that ends the array."""
    if text[at] != CLOSING[0] or text[at + 1 :].strip(SPACE):
        fail("The payload is not valid JSON: the array does not end with the text.")
    last = text[begin:at].strip(SPACE)
    return [*elements, last] if elements or last else []
