"""Parameters of notebooks as they are written on a command line."""

import ast
import re
import sys
from typing import Any


def values(given: list[str]) -> dict[str, Any]:
    """Parameters from texts like `seeds=5 networks=['fc', 'conv2']`; a value that is not written as Python is text.
    SystemExit where there is none."""
    found = {}
    for text in given:
        for word in re.split(r"\s+(?=\w+=)", text.strip()):
            key, given_one, written = word.partition("=")
            if not given_one:
                sys.exit(f"error: PARAMS: {word!r} gives no value: write NAME=VALUE, for example seeds=5.")
            try:
                found[key] = ast.literal_eval(written)
            except (ValueError, SyntaxError):
                found[key] = written
    return found
