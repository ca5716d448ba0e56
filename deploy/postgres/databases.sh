#!/bin/bash
# Run once by the postgres image on an empty data directory: one database and one role per service, each closed to the others.
set -euo pipefail

create() {  # role and database of one service; psql reads the password from the named variable, so no process list shows it
    psql -v ON_ERROR_STOP=1 -U postgres -v role="$1" <<SQL
\\getenv password $2
CREATE ROLE :"role" LOGIN PASSWORD :'password';
CREATE DATABASE :"role" OWNER :"role";
REVOKE CONNECT ON DATABASE :"role" FROM PUBLIC;
SQL
}

create intake ACCORD_INTAKE_DB_PASSWORD
create qualification ACCORD_QUALIFICATION_DB_PASSWORD
create sla ACCORD_SLA_DB_PASSWORD
create metrics ACCORD_METRICS_DB_PASSWORD
