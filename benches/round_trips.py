#!/usr/bin/env python3
"""How often a new TLS connection waits for the server: psql and systole, counted by a proxy between them and PostgreSQL.

    apt-get install postgresql openssl
    cargo build --release && benches/round_trips.py

A round trip is an answer of the server's to something of the client's. Both connect with
verify-full and SCRAM; psql asks SELECT 1, systole asks for the status of a run. Counts, not times: they do not depend on load.
"""

import os
import pathlib
import select
import shutil
import socket
import subprocess
import tempfile
import threading

SYSTOLE = str(pathlib.Path(__file__).resolve().parent.parent / "target/release/systole")


def shell(*arguments, **options):
    return subprocess.run(arguments, check=True, capture_output=True, text=True, **options).stdout.strip()


def certificate(folder):
    """A CA, and a server's certificate for db.example."""
    config = folder / "san.cnf"
    config.write_text("subjectAltName=DNS:db.example\n")
    shell("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=CA",
          "-keyout", folder / "ca.key", "-out", folder / "ca.crt")
    shell("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=db.example",
          "-keyout", folder / "server.key", "-out", folder / "server.csr")
    shell("openssl", "x509", "-req", "-in", folder / "server.csr", "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key",
          "-CAcreateserial", "-days", "1", "-extfile", config, "-out", folder / "server.crt")


class Proxy:
    """Passes bytes on, and counts the turns of each connection."""

    def __init__(self, port):
        self.upstream = port
        self.turns = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.carry, args=(client,), daemon=True).start()

    def carry(self, client):
        server = socket.create_connection(("127.0.0.1", self.upstream))
        self.turns.append(0)
        mine, last = len(self.turns) - 1, None
        pairs = {client: server, server: client}
        while True:
            for ready in select.select(list(pairs), [], [])[0]:
                data = ready.recv(1 << 16)
                if not data:
                    client.close()
                    server.close()
                    return
                if ready is server and last is client:
                    self.turns[mine] += 1
                last = ready
                pairs[ready].sendall(data)


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="systole-bench.", dir="/var/tmp"))
    folder.chmod(0o755)
    environment = os.environ | {
        "SYSTOLE_EMBEDDED_DIR": str(folder / "postgres"),
        "SYSTOLE_STATE_DIR": str(folder / "state"),
    }
    try:
        shell(SYSTOLE, "embedded", "start", env=environment)
        shell(SYSTOLE, "migrate", "--embedded", env=environment)
        url = shell(SYSTOLE, "embedded", "url", env=environment)
        certificate(folder)
        data = folder / "postgres/data"
        owner = data.stat()
        for name in ("server.crt", "server.key"):
            shutil.copy(folder / name, data / name)
            os.chown(data / name, owner.st_uid, owner.st_gid)
            os.chmod(data / name, 0o600)
        shell("psql", url, "-qc", "ALTER SYSTEM SET ssl = on", "-c", "SELECT pg_reload_conf()")
        tcp = shell(SYSTOLE, "embedded", "url", "--tcp", env=environment)
        password = tcp.split(":")[2].split("@")[0]
        proxy = Proxy(int(tcp.rsplit(":", 1)[1].split("/")[0]))
        target = (f"host=db.example hostaddr=127.0.0.1 port={proxy.port} dbname=systole user=systole "
                  f"sslmode=verify-full sslrootcert={folder}/ca.crt")
        environment |= {"PGPASSWORD": password, "SYSTOLE_DATABASE_URL": target, "PGCONNECT_TIMEOUT": "5"}
        shell("psql", target, "-Atc", "SELECT 1", env=environment)
        psql = proxy.turns[-1]
        subprocess.run([SYSTOLE, "status"], env=environment, check=True, capture_output=True)
        systole = proxy.turns[-1]
        print(f"psql     {psql} round trips")
        print(f"systole  {systole} round trips, {systole - psql:+d}")
    finally:
        subprocess.run([SYSTOLE, "embedded", "stop"], env=environment, capture_output=True)
        shutil.rmtree(folder)


main()
