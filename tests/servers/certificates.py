"""A certificate authority of a test's own, made with openssl, and certificates for servers and clients on 127.0.0.1."""

import subprocess
from pathlib import Path

from servers.server_process import program

SETTINGS = """\
[ca]
default_ca = here
[here]
dir = .
database = index.txt
new_certs_dir = .
serial = serial
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[server]
subjectAltName = IP:127.0.0.1,DNS:localhost
[elsewhere]
subjectAltName = DNS:elsewhere.example
[client]
extendedKeyUsage = clientAuth
"""


class Authority:
    """`ca_file` is what those who trust it are given."""

    def __init__(self, folder: Path, name: str = "tests") -> None:
        self.folder = folder / name
        self.folder.mkdir(parents=True)
        self.ca_file = self.folder / "ca.pem"
        self._openssl = program("openssl", "openssl")
        (self.folder / "ca.cnf").write_text(SETTINGS)
        (self.folder / "index.txt").write_text("")
        (self.folder / "serial").write_text("01\n")
        self._run("req", "-x509", *NEW_KEY, "-subj", f"/CN={name}", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem")

    def issue(self, name: str, extensions: str = "server", expired: bool = False) -> tuple[Path, Path]:
        """A certificate and its key, as files. `extensions` is "server" (127.0.0.1), "elsewhere" or "client"."""
        key, request, certificate = f"{name}.key", f"{name}.csr", f"{name}.pem"
        self._run("req", *NEW_KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        when = ("-startdate", "20200101000000Z", "-enddate", "20200102000000Z") if expired else ("-days", "2")
        self._run(
            *("ca", "-batch", "-notext", "-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.key"),
            *("-extensions", extensions, *when, "-in", request, "-out", certificate),
        )
        return self.folder / certificate, self.folder / key

    def both(self, name: str, extensions: str = "server", expired: bool = False) -> Path:
        """Key and certificate in one file, as Kafka's PEM key stores take them."""
        certificate, key = self.issue(name, extensions, expired)
        file = self.folder / f"{name}.both.pem"
        file.write_text(key.read_text() + certificate.read_text())
        return file

    def _run(self, *words: str) -> None:
        done = subprocess.run([self._openssl, *words], cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"openssl {' '.join(words)}:\n{done.stderr}"


NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
