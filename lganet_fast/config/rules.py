"""Allowed values of settings, for pydantic to check, and their description in words."""

from __future__ import annotations

from typing import Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

LARGEST = 2**63 - 1  # what TOML holds
OWN = "own"  # type of an error whose message completes "must be ..."


def whole(low: int) -> Any:
    """A whole number, from `low` on."""
    return Field(strict=True, ge=low, le=LARGEST)


def real(
    ge: float | None = None,
    gt: float | None = None,
    lt: float | None = None,
    le: float | None = None,
) -> Any:
    """A finite number, from `ge` on, above `gt`, below `lt`, up to `le`."""
    return Field(strict=True, allow_inf_nan=False, ge=ge, gt=gt, lt=lt, le=le)


def exactly() -> Any:
    """Only values of the type, not values that could be converted to it."""
    return Field(strict=True)


def said(wanted: str) -> Any:
    """A text that completes "must be ...", where that of the type is unclear."""
    return Field(description=wanted)


def _ascending(pair: tuple[Any, ...]) -> tuple[Any, ...]:
    *_, low, high = pair
    if not low < high:
        raise ValueError
    return pair


def _percentiles(window: tuple[str, float, float]) -> tuple[str, float, float]:
    kind, low, high = window
    if kind == "percentile" and not 0 <= low < high <= 100:
        raise ValueError
    return window


def _odd(number: int) -> int:
    if number % 2 == 0:
        raise PydanticCustomError(OWN, "odd")
    return number


def _for_each_axis(listed: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(listed) not in (0, 3):
        raise ValueError
    return listed


ASCENDING = AfterValidator(_ascending)
PERCENTILES = AfterValidator(_percentiles)
ODD = AfterValidator(_odd)
FOR_EACH_AXIS = AfterValidator(_for_each_axis)


def wanted(schema: dict[str, Any]) -> str:
    """The text that completes "must be ..." for a value's JSON schema."""
    if "description" in schema:
        return str(schema["description"])
    if "enum" in schema:
        return "one of " + ", ".join(map(repr, schema["enum"]))
    kind = schema["type"]
    if kind == "array":
        some = schema.get("prefixItems", [])
        count = f" of {len(some)}" if some else ""
        return f"a list{count}, each {wanted((some or [schema['items']])[0])}"
    if kind == "integer":
        return f"a whole number from {schema['minimum']} on"
    if kind == "number":
        return _number(schema)
    return {"string": "text", "boolean": "true or false"}[kind]


def _number(schema: dict[str, Any]) -> str:
    limits = []
    if "minimum" in schema:
        limits.append(f"from {schema['minimum']:g} on")
    if "exclusiveMinimum" in schema:
        limits.append(f"above {schema['exclusiveMinimum']:g}")
    if "maximum" in schema:
        limits.append(f"up to {schema['maximum']:g}")
    if "exclusiveMaximum" in schema:
        limits.append(f"below {schema['exclusiveMaximum']:g}")
    return " ".join(["a number", " and ".join(limits)]).strip()
