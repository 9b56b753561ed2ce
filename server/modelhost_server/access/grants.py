"""Grants as people write them, `predict:team-a` or `admin:*`, and why one does not do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import ModelhostError, Reason, brief
from ..store.names import MAX_LENGTH, check_name, scope_resource
from .identity import ALL_SCOPES, Identity, Role

_ROLES = {role.name.lower(): role for role in Role if role}


def read_grants(texts: Iterable[str]) -> dict[str, Role]:
    """Roles by scope; of several on one scope the highest counts.

    Raises:
        ValueError: what was expected.
    """
    grants: dict[str, Role] = {}
    for text in texts:
        name, _, scope = text.partition(":")
        if name not in _ROLES or not scope:
            raise ValueError(
                f"grant: expected ROLE:SCOPE, like predict:team-a or admin:*, with the role one of "
                f"{', '.join(_ROLES)}; got {brief(text)}"
            )
        if scope != ALL_SCOPES:
            try:
                check_name("scope", scope)
            except ModelhostError as error:
                raise ValueError(error.message) from None
        grants[scope] = max(_ROLES[name], grants.get(scope, Role.NONE))
    return grants


def grant_texts(grants: Mapping[str, Role]) -> list[str]:
    """Grants as they are written."""
    return [f"{role.name.lower()}:{scope}" for scope, role in sorted(grants.items())]


def permission_denied(identity: Identity, scope: str, needed: Role) -> ModelhostError:
    """What a caller is told whose role on a scope is too low. It is the same whether or not there is such a scope."""
    has = identity.role_on(scope)
    where = "all scopes (*)" if scope == ALL_SCOPES else f"scope {brief(scope)}"
    return ModelhostError(
        Reason.PERMISSION_DENIED,
        f"{brief(identity.name)} needs the role {needed.name.lower()} on {where} and has "
        f"{has.name.lower() if has else 'none there'}",
        resource=scope_resource(scope[:MAX_LENGTH]),
        needed_role=needed.name.lower(),
        role=has.name.lower(),
    )
