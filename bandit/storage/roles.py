"""The role that a running service has: it appends and reads, and cannot change the schema."""

from __future__ import annotations

from sqlalchemy import create_engine, make_url, pool, text

from bandit.storage.engine import translated

APPLICATION_ROLE = "liveops_app"

_USABLE = text("""
  SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :role)
    AND (SELECT pg_has_role(r.oid, 'MEMBER') AND has_table_privilege(r.oid, 'assignments', 'INSERT')
         FROM pg_roles r WHERE r.rolname = :role)
""")


def as_application(url: str) -> str | None:
    """Return `url` with the role of a running service; None where the server has no such role.

    The migrations make it where their user may make roles. Sessions log in as the same user and
    put its other rights down: who can send arbitrary SQL can take them up again, so this guards
    against mistakes and half-open doors, not against a stolen password.
    """
    engine = create_engine(url, poolclass=pool.NullPool)
    with translated(), engine.connect() as connection:
        usable = connection.execute(_USABLE, {"role": APPLICATION_ROLE}).scalar_one()
    if not usable:
        return None
    role = f"-c role={APPLICATION_ROLE}"
    given = make_url(url).query.get("options", "")
    chosen = make_url(url).update_query_dict({"options": f"{given} {role}".strip()})
    return chosen.render_as_string(hide_password=False)
