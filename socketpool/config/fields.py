"""The values of `socketpool.config.values` as types of pydantic models."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from socketpool.config.values import (
    MAX_SIZE,
    Address,
    check_service_name,
    parse_duration,
    parse_size,
)
from socketpool.core.ports import PortRange
from socketpool.defaults import MAX_DURATION_SECONDS


def _as_range(value: object) -> PortRange:
    return value if isinstance(value, PortRange) else PortRange.parse(str(value))


Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0, le=MAX_DURATION_SECONDS)]
Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0, le=MAX_SIZE)]
Count = Annotated[int, Field(strict=True, ge=0, le=10_000)]
ServiceName = Annotated[str, BeforeValidator(lambda v: check_service_name(str(v)))]
Ports = Annotated[PortRange, BeforeValidator(_as_range), PlainSerializer(str)]
Listen = Annotated[Address, BeforeValidator(Address.parse), PlainSerializer(str)]


class Strict(BaseModel):
    """An immutable model that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
