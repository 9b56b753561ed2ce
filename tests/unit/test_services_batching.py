"""Batching options in messages: what is taken, what is refused, and what is told back."""

from __future__ import annotations

from typing import Any

import pytest
from modelhost.v1 import model_pb2
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.services.native.batching import batching_message, batching_options
from modelhost_server.store.records import BatchingOptions


def message(**fields: Any) -> model_pb2.BatchingOptions:
    durations = {name: fields.pop(name) for name in ("max_delay", "queue_timeout") if name in fields}
    made = model_pb2.BatchingOptions(**fields)
    for name, seconds in durations.items():
        getattr(made, name).FromNanoseconds(round(seconds * 1e9))
    return made


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, BatchingOptions()),
        ({"mode": model_pb2.BATCHING_MODE_ON}, BatchingOptions(mode="ON")),
        ({"mode": model_pb2.BATCHING_MODE_OFF}, BatchingOptions(mode="OFF")),
        ({"max_batch_size": 32, "max_delay": 0.0025}, BatchingOptions(max_batch_size=32, max_delay=0.0025)),
        ({"allowed_batch_sizes": [1, 4, 16]}, BatchingOptions(allowed_batch_sizes=(1, 4, 16))),
        (
            {"allowed_batch_sizes": [4], "max_batch_size": 4},
            BatchingOptions(allowed_batch_sizes=(4,), max_batch_size=4),
        ),
        ({"pad_variable_length": True}, BatchingOptions(pad_variable_length=True)),
        ({"max_queue": 7, "queue_timeout": 3600}, BatchingOptions(max_queue=7, queue_timeout=3600)),
    ],
)
def test_options_are_taken_and_told_back(fields, options):
    assert batching_options(message(**fields)) == options
    told = batching_message(options)
    assert (told is None) == (options == BatchingOptions())
    assert told is None or told == message(**fields)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"mode": 3}, "mode"),
        ({"mode": -1}, "mode"),
        ({"max_batch_size": -1}, "max_batch_size"),
        ({"max_batch_size": (1 << 20) + 1}, "max_batch_size"),
        ({"allowed_batch_sizes": [0, 1]}, "allowed_batch_sizes"),
        ({"allowed_batch_sizes": [-4]}, "allowed_batch_sizes"),
        ({"allowed_batch_sizes": [4, 2]}, "allowed_batch_sizes"),
        ({"allowed_batch_sizes": [2, 2]}, "allowed_batch_sizes"),
        ({"allowed_batch_sizes": [(1 << 20) + 1]}, "allowed_batch_sizes"),
        ({"allowed_batch_sizes": [2, 4], "max_batch_size": 8}, "max_batch_size"),
        ({"allowed_batch_sizes": [2, 4], "max_batch_size": 2}, "max_batch_size"),
        ({"max_queue": -1}, "max_queue"),
        ({"max_delay": -0.001}, "max_delay"),
        ({"max_delay": 3601}, "max_delay"),
        ({"queue_timeout": -1}, "queue_timeout"),
        ({"queue_timeout": 3601}, "queue_timeout"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(fields, field):
    with pytest.raises(ModelhostError) as raised:
        batching_options(message(**fields))
    assert raised.value.reason is Reason.INVALID_REQUEST
    assert raised.value.field == f"options.batching.{field}"
    assert field in raised.value.message
