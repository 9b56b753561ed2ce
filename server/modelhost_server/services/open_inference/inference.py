"""One inference: from a request to a response, whatever they were sent as."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...access.identity import Role
from ...errors import ModelhostError, Reason
from ...hosting.host import Host
from ...hosting.prediction import Begun, Prediction
from ...tensors import STRING, FileRange, RawTensor, output_bytes
from ..call import Call
from ..names import scope_and_model
from .byte_strings import string_parts
from .checks import RequestChecks
from .classification import classify
from .models import not_there, version_choice
from .parameters import Options
from .places import check_room, write_place
from .regions import Place, SystemRegions


class InferenceRequest(NamedTuple):
    """A request.

    Attributes:
        model: as its caller calls it.
        version: a number, a label, or "".
        id: its caller's.
        options: what its parameters ask for.
        inputs: by name; those of BYTES are lists, or as they were sent.
        outputs: names of those wanted; all when empty.
        classes: of outputs that are to be classified, how many classes.
        places: of outputs that are to go into shared memory, where.
    """

    model: str
    version: str
    id: str
    options: Options
    inputs: Mapping[str, RawTensor]
    outputs: Sequence[str] = ()
    classes: Mapping[str, int] = {}
    places: Mapping[str, Place] = {}


class InferenceResponse(NamedTuple):
    """A response; outputs that have gone into shared memory are empty."""

    model: str
    version: int
    id: str
    outputs: Mapping[str, RawTensor]


class Inference:
    """An inference.

    Args:
        host: has the models.
        regions: the shared memory that `request.places` is in.
        request: what is asked for.
    """

    __slots__ = ("_checks", "_host", "_regions", "_targets", "request")

    def __init__(self, host: Host, regions: SystemRegions, request: InferenceRequest) -> None:
        self._host = host
        self._regions = regions
        self.request = request
        self._checks = RequestChecks(request.model, request.id)
        # A region may be unregistered, and another be registered by its name, while the inference runs.
        self._targets: dict[str, FileRange] = {}

    def begin(self, call: Call) -> Begun:
        """Begins it.

        Raises:
            ModelhostError, ForeignError: the request is not right, or nobody is there to answer it.
        """
        request = self.request
        version, label = version_choice(request.model, request.version)
        scope, model = scope_and_model(request.model)
        self._targets = {name: self._regions.range(place) for name, place in request.places.items()}
        try:
            # Of a stream, each request by itself.
            call.require(Role.PREDICT, scope)
            return self._host.predictions.begin(
                scope, model, version, label, request.options.signature, request.inputs, request.outputs,
                deadline=call.deadline, caller=call.who, priority=request.options.priority,
                checks=self._checks.checks(),
            )  # fmt: skip
        except ModelhostError as error:
            raise not_there(error, request.model, request.version) from None

    async def run(self, call: Call) -> InferenceResponse:
        """Begins it and answers what comes of it.

        Raises:
            ModelhostError, ForeignError: what `begin` and the prediction raise; DEADLINE_EXCEEDED.
        """
        timeout = self.request.options.timeout
        if timeout is None:
            return self.respond(await self.begin(call).result())
        own = asyncio.get_running_loop().time() + timeout
        deadline = own if call.deadline is None else min(own, call.deadline)
        begun = self.begin(call.until(deadline))
        try:
            async with asyncio.timeout_at(own):
                return self.respond(await begun.result())
        except TimeoutError:
            raise ModelhostError(Reason.DEADLINE_EXCEEDED, "the request's timeout passed before its answer") from None

    def respond(self, prediction: Prediction) -> InferenceResponse:
        """The response to what came of it.

        Raises:
            ForeignError: INVALID_ARGUMENT, INTERNAL.
        """
        request, outputs = self.request, prediction.outputs
        for name, count in request.classes.items():
            outputs[name] = classify(outputs[name], count, self._checks.is_batched, self._checks.labels(name))
        for name, place in request.places.items():
            self._place(name, place, outputs)
        return InferenceResponse(request.model, prediction.version, request.id, outputs)

    def _place(self, name: str, place: Place, outputs: dict[str, RawTensor]) -> None:
        output = outputs[name]
        is_text = output.dtype == STRING
        content = memoryview(b"".join(string_parts(output.data))) if is_text else output_bytes(output)  # type: ignore[arg-type]
        check_room(name, place, len(content))
        write_place(place, self._targets[name], content)
        outputs[name] = output._replace(data=[] if is_text else b"")
