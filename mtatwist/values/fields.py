"""From the configuration's tables to what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def fields(source: Any, target: Any) -> dict[str, Any]:
    """Those attributes of a configuration table that ``target`` has fields for."""
    names: Sequence[str] = getattr(target, "_fields", None) or tuple(target.__dataclass_fields__)
    return {name: getattr(source, name) for name in names}
