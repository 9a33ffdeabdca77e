"""The shop's database: PostgreSQL in the foreground, made and filled at the first start.

A new data directory is prepared beside its place and renamed into it, so that a container killed in the middle begins
anew and never serves half a shop.
"""

import os
import shutil
import subprocess
from pathlib import Path

PROGRAMS = Path("/usr/lib/postgresql/17/bin")
DATA = Path(os.environ["PGDATA"])
SCHEMA = Path("/etc/shop/schema.sql")
SOCKETS = "/tmp"


def prepare(target: Path) -> None:
    """Initialise ``target`` and run the schema against a server that no client can reach yet."""
    password = Path("/tmp/password")
    password.write_text(os.environ["POSTGRES_PASSWORD"])
    program("initdb", f"--pgdata={target}", "--username=shop", f"--pwfile={password}", "--auth-local=trust",
            "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8",
            "--data-checksums")  # fmt: skip
    password.unlink()
    with (target / "pg_hba.conf").open("a") as rules:
        rules.write("host all all all scram-sha-256\n")
    options = f"-c listen_addresses= -c unix_socket_directories={SOCKETS}"
    program("pg_ctl", f"--pgdata={target}", "--wait", f"--options={options}", "start")
    try:
        psql = ("psql", f"--host={SOCKETS}", "--username=shop", "--quiet", "--set=ON_ERROR_STOP=1")
        program(*psql, "--dbname=postgres", "--command=CREATE DATABASE shop")
        program(*psql, "--dbname=shop", f"--file={SCHEMA}")
    finally:
        program("pg_ctl", f"--pgdata={target}", "--wait", "--mode=fast", "stop")


def program(name: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs to its end; its failure is ours."""
    subprocess.run([str(PROGRAMS / name), *arguments], check=True)


def main() -> None:
    """Prepare what is missing, then become the server."""
    if not (DATA / "PG_VERSION").exists():
        fresh = DATA.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        prepare(fresh)
        fresh.rename(DATA)
    DATA.chmod(0o700)  # a volume's fsGroup adds group rights, and PostgreSQL refuses to start with them
    server = str(PROGRAMS / "postgres")
    os.execv(server, [server, "-D", str(DATA), "-c", "listen_addresses=*", "-c", f"unix_socket_directories={SOCKETS}"])


main()
