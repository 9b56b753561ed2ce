"""Trace and log settings of the Open Inference Protocol, as Triton extends it. Nothing is traced."""

from __future__ import annotations

import logging
import re

from ...compat import open_inference_pb2 as pb
from ...errors import Code, ForeignError
from ...hosting.host import Host
from ..call import Call
from ..names import scope_and_model
from .errors import invalid, quoted

# What Triton has while nobody traces.
_TRACE = {
    "trace_level": "OFF",
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "triton",
}
_TRACE_NUMBERS = ("trace_rate", "trace_count", "log_frequency")
_NUMBER = re.compile(r"-?[0-9]+", re.ASCII)
_FLAGS = {"log_info": logging.INFO, "log_warning": logging.WARNING, "log_error": logging.ERROR}
_SILENT = logging.CRITICAL


class _Flags(logging.Filter):
    """Lets the kinds of lines pass that are on, one by one; a level knows only from where on."""

    def __init__(self, root: logging.Logger) -> None:
        super().__init__()
        self.on = {name: root.isEnabledFor(level) for name, level in _FLAGS.items()}
        self.verbose = int(root.isEnabledFor(logging.DEBUG))

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is to be seen."""
        off = next((name for name, level in _FLAGS.items() if level == record.levelno), "")
        return self.on.get(off, True)

    @property
    def level(self) -> int:
        """From where on lines are worth making."""
        if self.verbose:
            return logging.DEBUG
        return min((level for name, level in _FLAGS.items() if self.on[name]), default=_SILENT)


class SettingsHandler:
    """Answers and changes settings."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._flags: _Flags | None = None

    async def trace_setting(self, request: pb.TraceSettingRequest, call: Call) -> pb.TraceSettingResponse:
        """Tells that nothing is traced, and refuses what would change that."""
        if request.model_name:
            self._check_ready(request.model_name)
        for name, setting in request.settings.items():
            if name == "trace_file":
                raise ForeignError(
                    Code.UNIMPLEMENTED, "trace file location can not be updated through network protocol"
                )
            if len(setting.value) > 1 and name != "trace_level":
                raise invalid(f"expect only 1 value for {quoted(name)}")
            if len(setting.value) > 1 and _TRACE["trace_level"] in setting.value:
                raise invalid("Expect only one trace level 'OFF' is specified")
            if name in _TRACE_NUMBERS and any(not _NUMBER.fullmatch(value) for value in setting.value):
                raise invalid(f"Unable to parse '{name}', got: {setting.value[0][:64]}")
            # No value: back to the default.
            if name in _TRACE and list(setting.value) not in ([], [_TRACE[name]]):
                raise ForeignError(
                    Code.UNIMPLEMENTED,
                    f"this server does not trace: '{name}' can only be '{_TRACE[name]}'; ModelStatistics has counts "
                    "and times of each model",
                )
        response = pb.TraceSettingResponse()
        for name, value in _TRACE.items():
            response.settings[name].value.append(value)
        return response

    def _check_ready(self, name: str) -> None:
        scope, model = scope_and_model(name)
        for known in self._host.store.all_scopes():
            if known.name == scope and model in known.models and known.models[model].serving is not None:
                return
        raise invalid(f"Request for unknown model : {name[:256]}")

    async def log_settings(self, request: pb.LogSettingsRequest, call: Call) -> pb.LogSettingsResponse:
        """Tells what is logged, and changes it."""
        root = logging.getLogger()
        flags = self._flags or _Flags(root)
        wanted = dict(request.settings)
        for name, kind, told in (
            *((flag, "bool_param", "boolean") for flag in _FLAGS),
            ("log_verbose_level", "uint32_param", "int32"),
            ("log_format", "string_param", "string"),
        ):
            if name in wanted and wanted[name].WhichOneof("parameter_choice") != kind:
                raise invalid(f"expect {told} for '{name}'")
        if "log_file" in wanted:
            raise ForeignError(Code.UNIMPLEMENTED, "log file location can not be updated through network protocol")
        if "log_format" in wanted and wanted["log_format"].string_param != "default":
            raise invalid(f"invalid argument for log_format, got: {wanted['log_format'].string_param[:64]}")
        flags.on.update({name: wanted[name].bool_param for name in _FLAGS if name in wanted})
        if "log_verbose_level" in wanted:
            flags.verbose = wanted["log_verbose_level"].uint32_param
        if wanted:
            self._apply(root, flags)
        response = pb.LogSettingsResponse()
        response.settings["log_file"].string_param = ""
        for name in _FLAGS:
            response.settings[name].bool_param = flags.on[name]
        response.settings["log_verbose_level"].uint32_param = flags.verbose
        response.settings["log_format"].string_param = "default"
        return response

    def _apply(self, root: logging.Logger, flags: _Flags) -> None:
        if self._flags is None:
            self._flags = flags
            for handler in root.handlers:
                handler.addFilter(flags)
        root.setLevel(flags.level)
