"""The kinds of service, as files, answers and the client know them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from socketpool.client.answers import ServiceDescription, parse_record_json
from socketpool.config.models import ServiceFile
from socketpool.core.servicekinds import ServiceKind

SDK = {"description": "x", "sdk": {"file": "x.py", "class": "X"}}


@pytest.mark.parametrize("kind", ServiceKind)
def test_a_file_and_an_answer_name_a_kind_by_its_word(kind: ServiceKind) -> None:
    assert ServiceFile.model_validate(SDK | {"client": str(kind)}).client is kind
    entry = parse_record_json(ServiceDescription, f'{{"service": "x", "client": "{kind}"}}')
    assert entry.client is kind


def test_a_file_with_another_kind_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValidationError, match="'upload', 'vendor' or 'download'"):
        ServiceFile.model_validate(SDK | {"client": "sideload"})


def test_a_kind_of_a_newer_server_is_as_none() -> None:
    entry = parse_record_json(ServiceDescription, '{"service": "x", "client": "sideload"}')
    assert entry.client is None
    with pytest.raises(ValidationError):
        parse_record_json(ServiceDescription, '{"service": "x", "client": 5}')


def test_each_step_needs_one_that_comes_before_it_in_the_usual_order() -> None:
    order = list(ServiceKind)
    for kind in order:
        needs = kind.facts.needs
        assert needs is None or order.index(needs) < order.index(kind)
    assert [kind.facts.gives_archive for kind in order] == [False, False, True]
