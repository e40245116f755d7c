"""Roles: a running service appends and reads, and only the archivist lets rows leave."""

from __future__ import annotations

from sqlalchemy import Connection, create_engine, make_url, pool, text

from bandit.storage.engine import one, run, session_options, translated

APPLICATION_ROLE = "liveops_app"
ARCHIVIST_ROLE = "liveops_archivist"

_USABLE = text("""
  SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :role)
    AND (SELECT pg_has_role(r.oid, 'SET') AND has_table_privilege(r.oid, 'assignments', :right)
         FROM pg_roles r WHERE r.rolname = :role)
""")


def as_application(url: str) -> str | None:
    """Return `url` with the role of a running service; None where the server has no such role.

    The migrations make it where their user may make roles. Sessions log in as the same user and
    put its other rights down: who can send arbitrary SQL can take them up again, so this guards
    against mistakes and half-open doors, not against a stolen password.
    """
    return _with_role(url, APPLICATION_ROLE) if _usable(url, APPLICATION_ROLE, "INSERT") else None


def as_archivist(url: str) -> str:
    """Return `url`, whatever role it names, with that of the archivist.

    Where the server has no such role, with the rights of the user who logs in.
    """
    own = as_owner(url)
    return _with_role(own, ARCHIVIST_ROLE) if _usable(own, ARCHIVIST_ROLE, "DELETE") else own


def as_owner(url: str) -> str:
    """Return `url`, whatever role it names, with the rights of the user who logs in.

    Of an embedded ledger, and of one that this user has migrated, it owns the tables.
    """
    return _with_role(url, "none")


def make(connection: Connection) -> bool:
    """Make the roles where the server lets us; say whether both are there afterwards.

    For a server that a backup is restored to: what it grants names them.
    """
    for role in (APPLICATION_ROLE, ARCHIVIST_ROLE):
        run(connection, _MAKE.format(role=role))
    found = one(
        connection,
        "SELECT count(*) AS n FROM pg_roles WHERE rolname IN (:application, :archivist)",
        application=APPLICATION_ROLE,
        archivist=ARCHIVIST_ROLE,
    )
    assert found is not None
    return int(found["n"]) == 2


_MAKE = """
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
    CREATE ROLE {role} NOLOGIN;
  END IF;
  IF NOT pg_has_role(current_user, '{role}', 'SET') THEN
    EXECUTE format('GRANT {role} TO %I', current_user);
  END IF;
EXCEPTION
  WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN NULL;
END $$;
"""


def _usable(url: str, role: str, right: str) -> bool:
    engine = create_engine(url, poolclass=pool.NullPool)
    with translated(), engine.connect() as connection:
        found = connection.execute(_USABLE, {"role": role, "right": right})
        return bool(found.scalar_one())


def _with_role(url: str, role: str) -> str:
    # Of several such options the last one counts.
    chosen = make_url(url).update_query_dict({"options": session_options(url, f"-c role={role}")})
    return chosen.render_as_string(hide_password=False)
