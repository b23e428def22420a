"""The policies at the door, by name.

To add one: a file here, a line in :data:`REGISTRY`, and its name in ``[validators] order``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mtatwist.validators.device import Device
from mtatwist.validators.loop import Loop
from mtatwist.validators.parameters import Parameters
from mtatwist.validators.rate import Rate
from mtatwist.validators.relay import Relay
from mtatwist.validators.send_as import SendAs
from mtatwist.validators.size import Size

if TYPE_CHECKING:
    from mtatwist.interfaces import IValidator

REGISTRY: dict[str, Callable[..., Any]] = {
    "parameters": Parameters,
    "size": Size,
    "relay": Relay,
    "device": Device,
    "send_as": SendAs,
    "rate": Rate,
    "loop": Loop,
}


def build(order: Sequence[str], **settings: Any) -> list[IValidator]:
    """The validators named in ``order``, each made with those of ``settings`` that its class asks for.

    Raises KeyError on an unknown name (the configuration has refused it before).
    """
    made = []
    for name in order:
        factory = REGISTRY[name]
        wanted = inspect.signature(factory).parameters
        made.append(factory(**{key: value for key, value in settings.items() if key in wanted}))
    return made
