"""Databases for tests: copies of a migrated template, made as they were again after a test and given to a later one.

To make a database costs PostgreSQL some hundred files; to empty the few tables that a test wrote to costs a tenth of
it. Never kept is a database whose shape a test changed: it is dropped.
"""

import uuid
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from accord_local.postgres import DATABASES, SUPERUSER, PostgresServer

Migrate = Callable[[str], None]

# In the template, so in every copy: what its tables and sequences held, whether its shape was changed since, and the
# way back. A temporary table is no change.
_REMEMBER = """
CREATE SCHEMA original;
CREATE TABLE original.changed (command text);
CREATE TABLE original.sequence AS SELECT schemaname, sequencename, last_value FROM pg_sequences;
DO $$
DECLARE name text;
BEGIN
    FOR name IN SELECT relname FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND pg_relation_size(oid) > 0
    LOOP
        EXECUTE format('CREATE TABLE original.%I AS TABLE public.%I', 'rows of ' || name, name);
    END LOOP;
END $$;

CREATE FUNCTION original.note_change() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF tg_event = 'sql_drop' THEN
        INSERT INTO original.changed
            SELECT tg_tag FROM pg_event_trigger_dropped_objects() WHERE NOT is_temporary LIMIT 1;
    ELSE
        INSERT INTO original.changed
            SELECT tg_tag FROM pg_event_trigger_ddl_commands() WHERE schema_name IS DISTINCT FROM 'pg_temp' LIMIT 1;
    END IF;
END $$;

CREATE FUNCTION original.restore() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE written text; name text; same boolean;
BEGIN
    PERFORM pg_terminate_backend(pid, 5000) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid();
    IF EXISTS (SELECT FROM original.changed) THEN
        RETURN false;
    END IF;
    SET LOCAL session_replication_role = replica;
    FOR name IN SELECT relname FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND pg_relation_size(oid) > 0
    LOOP
        same := false;
        IF to_regclass(format('original.%I', 'rows of ' || name)) IS NOT NULL THEN
            EXECUTE format(
                'SELECT (SELECT array_agg(t::text ORDER BY t::text) FROM public.%I t) IS NOT DISTINCT FROM '
                '(SELECT array_agg(t::text ORDER BY t::text) FROM original.%I t)', name, 'rows of ' || name
            ) INTO same;
        END IF;
        IF NOT same THEN
            written := concat_ws(', ', written, format('public.%I', name));
        END IF;
    END LOOP;
    IF written IS NOT NULL THEN
        EXECUTE 'TRUNCATE ' || written || ' CASCADE';
    END IF;
    FOR name IN SELECT substr(relname, 9) FROM pg_class
        WHERE relnamespace = 'original'::regnamespace AND relname LIKE 'rows of %'
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM public.%I)', name) INTO same;
        IF NOT same THEN
            EXECUTE format(
                'INSERT INTO public.%I OVERRIDING SYSTEM VALUE TABLE original.%I', name, 'rows of ' || name
            );
        END IF;
    END LOOP;
    PERFORM setval(
        format('%I.%I', now.schemaname, now.sequencename),
        coalesce(was.last_value, now.start_value),
        was.last_value IS NOT NULL
    ) FROM pg_sequences now JOIN original.sequence was USING (schemaname, sequencename)
    WHERE now.last_value IS DISTINCT FROM was.last_value;
    RETURN true;
END $$;

CREATE EVENT TRIGGER note_change ON ddl_command_end EXECUTE FUNCTION original.note_change();
CREATE EVENT TRIGGER note_drop ON sql_drop EXECUTE FUNCTION original.note_change();
"""

# A new name, so that a process which a test forgot does not find a later test's database.
_RESTORE = f"""
SELECT original.restore() AS restored \\gset
\\connect {SUPERUSER}
\\if :restored
    ALTER DATABASE "{{database}}" RENAME TO "{{renamed}}";
    SELECT true;
\\else
    DROP DATABASE "{{database}}" WITH (FORCE);
    SELECT false;
\\endif
"""


class Databases:
    """One worker's templates and the databases that no test has at the moment, both by what made them."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._templates: dict[Any, str] = {}
        self._free: defaultdict[Any, list[str]] = defaultdict(list)

    def take(self, kind: Any, name: str, migrate: Migrate) -> str:
        """A database as `migrate(url)` leaves it, for one test; `kind` says which databases are the same."""
        if self._free[kind]:
            return self._free[kind].pop()
        owner = owner_of(name)
        if kind not in self._templates:
            self._templates[kind] = self._make_template(name, owner, migrate)
        database = _new_name(name)
        self._server.execute(f'CREATE DATABASE "{database}" OWNER "{owner}" TEMPLATE "{self._templates[kind]}"')
        return database

    def give_back(self, kind: Any, name: str, database: str) -> None:
        """End all sessions of a database and keep it, restored, under a new name; drop it if its shape changed."""
        renamed = _new_name(name)
        if self._server.execute(_RESTORE.format(database=database, renamed=renamed), database) == "t":
            self._free[kind].append(renamed)

    def _make_template(self, name: str, owner: str, migrate: Migrate) -> str:
        template = f"template_{name}_{uuid.uuid4().hex[:10]}"
        self._server.execute(f'CREATE DATABASE "{template}" OWNER "{owner}"')
        with ThreadPoolExecutor(max_workers=1) as pool:  # `migrate` may run an event loop; the caller may be in one
            pool.submit(migrate, self._server.url(template, owner)).result()
        self._server.execute(_REMEMBER, template)
        # A template can't be copied while anybody is connected to it.
        self._server.execute(
            f'ALTER DATABASE "{template}" ALLOW_CONNECTIONS false;'
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{template}'"
        )
        return template


def owner_of(name: str) -> str:
    """The role of a service's database; the superuser of any other."""
    return DATABASES.get(name, SUPERUSER)


def _new_name(name: str) -> str:
    return f"test_{name}_{uuid.uuid4().hex[:10]}"
