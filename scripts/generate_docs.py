"""Generates docs/api.md from the comments of the protos. Usage: generate_docs.py DESCRIPTOR_SET OUTPUT

The descriptor set is protoc's, made with --include_source_info. To be run with the tools environment of generate.sh,
which pins protoc.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf import descriptor_pb2 as pb

# Numbers of the fields that lead to a declaration, in descriptor.proto; a SourceCodeInfo path is made of them.
FILE_MESSAGE, FILE_ENUM, FILE_SERVICE, FILE_SYNTAX, MEMBER = 4, 5, 6, 12, 2

HEADER = """\
# API reference: {package}

Generated from the comments in `protos/` by `scripts/generate_docs.py`; do not edit. How the calls behave together
(errors, retries, names, streams) is told in [protocol.md](protocol.md).
"""


class FilePage:
    """The section of one proto file."""

    def __init__(self, file: pb.FileDescriptorProto) -> None:
        self._file = file
        self._comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}

    def lines(self) -> Iterator[str]:
        """The section, in Markdown."""
        yield f"\n## {Path(self._file.name).name}\n"
        yield self._text(FILE_SYNTAX)
        for index, service in enumerate(self._file.service):
            yield from self._service(service, (FILE_SERVICE, index))
        for index, message in enumerate(self._file.message_type):
            yield from self._message(message, (FILE_MESSAGE, index))
        for index, enum in enumerate(self._file.enum_type):
            yield from self._enum(enum, (FILE_ENUM, index))

    def _text(self, *path: int) -> str:
        """The comment at a path. What is indented in it is code."""
        lines = (line.removeprefix(" ").rstrip() for line in self._comments.get(path, "").strip("\n").split("\n"))
        return "\n".join(re.sub(r"^ +", r"    ", line) for line in lines)

    def _cell(self, *path: int) -> str:
        """The comment at a path, for a table."""
        paragraphs = (" ".join(part.split()) for part in self._text(*path).split("\n\n"))
        return "<br>".join(paragraphs).replace("|", "\\|")

    def _service(self, service: pb.ServiceDescriptorProto, path: Sequence[int]) -> Iterator[str]:
        yield f"\n### {service.name}\n"
        yield self._text(*path)
        for index, method in enumerate(service.method):
            request = ("stream " if method.client_streaming else "") + _link(method.input_type)
            response = ("stream " if method.server_streaming else "") + _link(method.output_type)
            yield f"\n#### {service.name}.{method.name}\n"
            yield f"{request} → {response}\n"
            yield self._text(*path, MEMBER, index)

    def _message(self, message: pb.DescriptorProto, path: Sequence[int]) -> Iterator[str]:
        yield f"\n### {message.name}\n"
        yield self._text(*path)
        if not message.field:
            return
        yield "\n| Field | Type | Number | Meaning |\n|---|---|---:|---|"
        scope = f".{self._file.package}.{message.name}"
        entries = {f"{scope}.{nested.name}": nested for nested in message.nested_type}
        for index, field in enumerate(message.field):
            choice = ""
            if field.HasField("oneof_index") and not field.proto3_optional:
                choice = f"One of `{message.oneof_decl[field.oneof_index].name}`. "
            meaning = choice + self._cell(*path, MEMBER, index)
            yield f"| `{field.name}` | {_type(field, entries)} | {field.number} | {meaning} |"

    def _enum(self, enum: pb.EnumDescriptorProto, path: Sequence[int]) -> Iterator[str]:
        yield f"\n### {enum.name}\n"
        yield self._text(*path)
        yield "\n| Value | Number | Meaning |\n|---|---:|---|"
        for index, value in enumerate(enum.value):
            yield f"| `{value.name}` | {value.number} | {self._cell(*path, MEMBER, index)} |"


def _link(type_name: str) -> str:
    """A type's short name, as a link when it is described on this page."""
    name = type_name.rpartition(".")[2]
    return f"[{name}](#{name.lower()})" if not type_name.startswith(".google.") else f"`{type_name[1:]}`"


def _type(field: pb.FieldDescriptorProto, entries: dict[str, pb.DescriptorProto]) -> str:
    if field.type_name in entries:
        key, value = entries[field.type_name].field
        return f"map of {_type(key, {})} to {_type(value, {})}"
    name = _link(field.type_name) if field.type_name else pb.FieldDescriptorProto.Type.Name(field.type)[5:].lower()
    return f"repeated {name}" if field.label == pb.FieldDescriptorProto.LABEL_REPEATED else name


def main(descriptor_set: Path, output: Path) -> None:
    """Writes the page of the files in a descriptor set, those with services first."""
    files = sorted(
        pb.FileDescriptorSet.FromString(descriptor_set.read_bytes()).file, key=lambda f: (not f.service, f.name)
    )
    lines = [HEADER.format(package=files[0].package)]
    for file in files:
        names = [item.name for items in (file.service, file.message_type, file.enum_type) for item in items]
        lines.append(f"- `{Path(file.name).name}`: {', '.join(_link(name) for name in names)}")
    lines += [line for file in files for line in FilePage(file).lines()]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
