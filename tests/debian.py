"""A private cluster of Debian's PostgreSQL: TCP only, with TLS and passwords.

It listens on a free port of loopback, runs as an unprivileged user when root, and has a
certificate for `localhost` by an authority of its own. The cluster that Debian itself makes is
left alone.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

ADMIN = "admin"
PASSWORD = "p@ss/w#rd%1"
_HBA = "hostssl all all 127.0.0.1/32 scram-sha-256\n"


class Server:
    """A cluster in a folder of its own."""

    def __init__(self, folder: Path, programs: Path, port: int) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.ca = folder / "ca.crt"
        self.port = port
        self._programs = programs
        self._user = "postgres" if os.geteuid() == 0 else None

    def run(self, name: str, *args: str) -> None:
        done = subprocess.run(
            [self._programs / name, *args],
            user=self._user,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if name != "pg_ctl" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == 0, (done.stdout or b"").decode()

    def start(self) -> None:
        self.run("pg_ctl", "start", "-w", "-D", str(self.data), "-l", str(self.folder / "log"))

    def stop(self, mode: str = "fast") -> None:
        self.run("pg_ctl", "stop", "-w", "-D", str(self.data), "-m", mode)

    def kill(self) -> None:
        """End the postmaster without a word."""
        os.kill(int((self.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def restart_after_kill(self) -> None:
        for _ in range(50):  # the children of a killed postmaster end a moment after it
            try:
                self.start()
            except AssertionError:
                continue
            return
        self.start()

    def url(
        self,
        database: str = "postgres",
        *,
        user: str = ADMIN,
        password: str = PASSWORD,
        **options: str,
    ) -> str:
        options = {"sslmode": "verify-full", "sslrootcert": str(self.ca)} | options
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items())
        who = f"{user}:{quote(password, safe='')}"
        return f"postgresql://{who}@localhost:{self.port}/{database}?{query}"


@contextmanager
def running(programs: Path) -> Iterator[Server]:
    """Make a cluster, start it, and delete it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="llm-integrations-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        entry = pwd.getpwnam("postgres")
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    folder.chmod(0o755)
    server = Server(folder, programs, _free_port())
    try:
        _create(server)
        server.start()
        yield server
    finally:
        if (server.data / "postmaster.pid").exists():
            server.stop("immediate")
        shutil.rmtree(folder)


def make_authority(folder: Path, name: str) -> None:
    """Make `name`.crt and `name`.key, who may sign."""
    _openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-days", "2", "-subj", f"/CN={name}",
        "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.crt",
    )  # fmt: skip


def _create(server: Server) -> None:
    folder = server.folder
    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    server.run(
        "initdb", "-D", str(server.data), "-U", ADMIN, "--auth", "scram-sha-256",
        f"--pwfile={secret}", "-E", "UTF8", "--locale", "C.UTF-8", "--no-sync",
    )  # fmt: skip
    make_authority(folder, "ca")
    _openssl(
        "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-subj", "/CN=localhost",
        "-keyout", f"{folder}/server.key", "-out", f"{folder}/server.csr",
    )  # fmt: skip
    names = folder / "names"
    names.write_text("subjectAltName=DNS:localhost\n")
    _openssl(
        "x509", "-req", "-in", f"{folder}/server.csr", "-days", "2", "-CAcreateserial",
        "-CA", f"{folder}/ca.crt", "-CAkey", f"{folder}/ca.key", "-extfile", str(names),
        "-out", f"{folder}/server.crt",
    )  # fmt: skip
    key = folder / "server.key"
    key.chmod(0o600)
    if os.geteuid() == 0:
        entry = pwd.getpwnam("postgres")
        os.chown(key, entry.pw_uid, entry.pw_gid)
    with (server.data / "postgresql.conf").open("a") as conf:
        conf.write(
            f"port = {server.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n"
            f"ssl = on\nssl_cert_file = '{folder}/server.crt'\nssl_key_file = '{key}'\n"
            "fsync = on\n"
        )
    (server.data / "pg_hba.conf").write_text(_HBA)


def _openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port
