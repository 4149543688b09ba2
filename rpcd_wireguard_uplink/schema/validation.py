"""Values against JSON Schemas: coercion, and a sentence about the first fault.

null counts as absent, a value is coerced by its declared type only, and a sentence is built from
the path and the keyword, never from the library's message. A schema may carry annotations: `x-must`
(words after "must" for a pattern), `x-secret` (the value is never quoted), `x-words` (for the
command line). jsonschema judges what owners give, and is loaded with the first of it: it takes 4 MB
and much time. What peers say is judged by the same keywords without it (keywords.py).
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgument
from ..reasons import because, joined, told_with
from ..text import quoted, shortened
from .keywords import FORMATS, Fault, faults
from .lean import leaving_out

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_DECIMAL = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?")
_TYPE_WORDS = {
    "string": because("a_string"),
    "integer": because("a_whole_number"),
    "number": because("a_number"),
    "boolean": because("a_flag"),
    "object": because("a_table"),
    "array": because("a_list"),
}


class Schema:
    """A JSON Schema (Draft 2020-12); its validator is made once, when it is first needed."""

    __slots__ = ("_validator", "tree")

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self.tree = tree
        self._validator: Draft202012Validator | None = None

    @property
    def properties(self) -> Mapping[str, Mapping[str, Any]]:
        properties: Mapping[str, Mapping[str, Any]] = self.tree.get("properties", {})
        return properties

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(self.tree.get("required", ()))

    def prepare(self) -> Draft202012Validator:
        """Return the validator, and make it first where that was not done yet."""
        if self._validator is None:
            # The type says `dict`; nothing writes to the tree.
            made = _validator_class()(dict(self.tree), format_checker=_format_checker())
            # A first check loads the last parts of the library; any value will do.
            next(made.iter_errors(None), None)
            self._validator = made
        return self._validator

    def is_ready(self, raw: Mapping[str, Any]) -> bool:
        """Whether this can be checked without `prepare`, which takes a tenth of a second or more
        for the first schema of a process. It may run in a thread.
        """
        return self._validator is not None or not (raw or self.required)

    def fault(self, value: Any, owner: str) -> str:
        """Return what is wrong with a value and what would be right, as a sentence, or ''; `owner`
        is who takes its members. Unknown members come first, then missing ones, then wrong types.
        """
        if value == {} and not self.required:
            return ""
        return _first_of(self.prepare().iter_errors(value), owner)


def coerced(schema: Mapping[str, Any], value: Any) -> Any:
    """Return the value as its declared type, or unchanged where that is not possible.

    integer takes decimal strings of up to 18 digits and floats without a fraction, number takes
    decimal strings, boolean takes 0, 1, "0" and "1". In tables, members that are null are left
    out. What is left unchanged and wrong is for the schema to refuse.
    """
    declared = schema.get("type")
    if declared == "object" and isinstance(value, Mapping):
        properties = schema.get("properties", {})
        return {
            name: coerced(properties[name], member) if name in properties else member
            for name, member in value.items()
            if member is not None
        }
    if declared == "boolean" and type(value) in (int, str) and value in (0, 1, "0", "1"):
        return value in (1, "1")
    if declared == "integer":
        if isinstance(value, str) and _INTEGER.fullmatch(value):
            return int(value)
        if isinstance(value, float) and value.is_integer():
            return int(value)
    if declared == "number" and isinstance(value, str) and _DECIMAL.fullmatch(value):
        return float(value)
    return value


def parse(schema: Schema, raw: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Return the table coerced and valid. Raises InvalidArgument with a sentence that names the
    member; `owner` is who takes these members, as in "extra is not an argument of OWNER".
    """
    value: dict[str, Any] = coerced(schema.tree, raw)
    if fault := schema.fault(value, owner):
        raise InvalidArgument(fault)
    return value


def parse_message(schema: Schema, raw: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Return what a peer said as `parse` does, without the library."""
    value: dict[str, Any] = coerced(schema.tree, raw)
    if fault := _first_of(faults(schema.tree, value), owner):
        raise InvalidArgument(fault)
    return value


def _first_of(errors: Iterable[Fault | ValidationError], owner: str) -> str:
    error = min(errors, key=_urgency, default=None)
    return "" if error is None else _sentence(error, owner)


def _sentence(error: Fault | ValidationError, owner: str) -> str:
    """What is wrong, without secrets and foreign control codes."""
    schema: Mapping[str, Any] = error.schema if isinstance(error.schema, Mapping) else {}
    path, keyword = tuple(error.absolute_path), str(error.validator)
    value: Any = error.instance
    if keyword == "additionalProperties":
        known = list(schema.get("properties", {}))
        unknown = min(name for name in value if name not in known)
        takes = ", ".join(known) if known else "none"
        return because("no_argument", _place((*path, unknown)), owner, takes)
    if keyword == "required":
        missing = next(name for name in schema["required"] if name not in value)
        hint = schema["properties"][missing].get("description", "it")
        return because("argument_missing", _place((*path, missing)), hint)
    where = _place(path) or "the value"
    if keyword == "type":
        return told_with(
            because("must_be", where, _wanted(schema)), f", not {_found(schema, value)}"
        )
    if keyword == "maxLength":
        return because("longer", where, schema["maxLength"])
    if keyword == "format" and isinstance(error.cause, InvalidArgument):
        cause = str(error.cause)
        return cause if cause.startswith(f"{where} ") else because("option_unusable", where, cause)
    shown = "" if schema.get("x-secret") else f", not {quoted(value)}"
    if keyword in ("minimum", "maximum") and {"minimum", "maximum"} <= schema.keys():
        bounds = schema["minimum"], schema["maximum"]
        return told_with(because("must_range", where, *bounds), shown)
    if keyword in ("enum", "const"):
        allowed = schema["enum"] if keyword == "enum" else [schema["const"]]
        return told_with(because("must_choice", where, ", ".join(map(quoted, allowed))), shown)
    if "x-must" in schema:
        return told_with(because("must", where, schema["x-must"]), shown)
    return told_with(because("breaks_rule", where, keyword, schema[keyword]), shown)


def _place(path: Iterable[str | int]) -> str:
    """A path as people write it (`uplinks[2].weight`), its names shortened and printable."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{shortened(step)}" if text else shortened(step)
    return text


def _wanted(schema: Mapping[str, Any]) -> str:
    declared = schema["type"]
    names = [declared] if isinstance(declared, str) else declared
    return joined(" or ", (_TYPE_WORDS[name] for name in names))


def _found(schema: Mapping[str, Any], value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, Mapping):
        return "a table"
    if not isinstance(value, str | int | float):
        return "a list"
    # Where a number was meant the value itself tells more than its type.
    if schema["type"] in ("integer", "number", "boolean") and not schema.get("x-secret"):
        return quoted(value)
    return "a string" if isinstance(value, str) else "a number"


def _urgency(error: Fault | ValidationError) -> tuple[int, str]:
    first = {"additionalProperties": 0, "required": 1, "type": 2}
    return first.get(str(error.validator), 3), _place(error.absolute_path)


def _finite(_checker: object, value: object) -> bool:
    # Comparisons with NaN are all false, so that `minimum` and `maximum` would let it pass.
    # Whole numbers are compared as they are: one of 400 digits is no float.
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and type(value) is not bool


@functools.cache
def _validator_class() -> type[Draft202012Validator]:
    # Releases before 4.18 ask for urllib.request; idna is for formats that nobody asks for here.
    with leaving_out("bz2", "lzma", "ssl", "idna"):
        from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    types = Draft202012Validator.TYPE_CHECKER.redefine("number", _finite)
    # types-jsonschema has no annotations for extend.
    made: type[Draft202012Validator] = extend(Draft202012Validator, type_checker=types)  # type: ignore[no-untyped-call]
    return made


@functools.cache
def _format_checker() -> Any:
    from jsonschema import FormatChecker

    checker = FormatChecker(formats=())
    for name, parser in FORMATS.items():
        checker.checks(name, raises=InvalidArgument)(functools.partial(_accepts, parser))
    return checker


def _accepts(parser: Any, value: object) -> bool:
    return not isinstance(value, str) or bool(parser(value))
