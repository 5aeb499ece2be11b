"""Certificate authorities for tests in Python, made with the openssl command."""

import pathlib
import subprocess

CONFIG = """
[ca]
default_ca = this
[this]
database = {folder}/{name}.index
default_md = sha256
default_crl_days = 30
"""


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Authority:
    """One authority; everything lies as PEM files in `folder`, under the authority's name."""

    serial = 1000

    def __init__(self, folder, name):
        self.folder, self.name = pathlib.Path(folder), name
        self.cert, self.key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        self.crl = self.folder / f"{name}.crl"
        self.index, self.config = self.folder / f"{name}.index", self.folder / f"{name}.cnf"
        self.config.write_text(CONFIG.format(folder=self.folder, name=name))
        self.index.write_text("")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                f"/CN={name}", "-days", 30, "-keyout", self.key, "-out", self.cert)
        self.write_crl()

    def issue(self, name, hosts=("DNS:localhost", "IP:127.0.0.1"), days=30):
        """The paths of a certificate and its key. Files of the same name are replaced, the key first."""
        Authority.serial += 1
        cert, key = self.folder / f"{name}.crt", self.folder / f"{name}.crt.key"
        request, extensions = self.folder / "request", self.folder / "extensions"
        extensions.write_text(f"subjectAltName={','.join(hosts)}\nextendedKeyUsage=serverAuth,clientAuth\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                "-keyout", f"{key}.new", "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.key, "-set_serial",
                Authority.serial, "-days", days, "-extfile", extensions, "-out", f"{cert}.new")
        pathlib.Path(f"{key}.new").replace(key)
        pathlib.Path(f"{cert}.new").replace(cert)
        return cert, key

    def revoke(self, cert):
        openssl("ca", "-config", self.config, "-cert", self.cert, "-keyfile", self.key, "-revoke", cert)
        self.write_crl()

    def write_crl(self):
        openssl("ca", "-config", self.config, "-cert", self.cert, "-keyfile", self.key, "-gencrl", "-out",
                f"{self.crl}.new")
        pathlib.Path(f"{self.crl}.new").replace(self.crl)
