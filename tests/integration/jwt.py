"""JSON web tokens made without any library of theirs or ours: keys and signatures by the openssl command."""

import base64
import hashlib
import hmac
import json
import pathlib
import subprocess
import tempfile

from pki import openssl

SECRET = "a secret of more than thirty-two bytes"


def b64url(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64url(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def claims_of(token):
    return json.loads(unb64url(token.split(".")[1]))


class Key:
    """A key pair for one method; `flags` are those of a server that signs and verifies with it."""

    def __init__(self, folder, method, name="jwt"):
        self.method = method
        self.private, self.public = (pathlib.Path(folder) / f"{name}-{method}.{kind}" for kind in ("key", "pub"))
        if method.startswith("HS"):
            self.private.write_text(SECRET + name)
            return
        kind = {"RS": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "PS": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
                "ES": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"], "Ed": ["ED25519"]}[method[:2]]
        openssl("genpkey", "-algorithm", *kind, "-out", self.private)
        if method[:2] == "RS":  # the older form, which etcd 3.4 reads
            openssl("rsa", "-in", self.private, "-traditional", "-out", self.private)
        openssl("pkey", "-in", self.private, "-pubout", "-out", self.public)

    def spec(self, ttl="5m", keys=("pub-key", "priv-key")):
        files = {"pub-key": self.public, "priv-key": self.private}
        named = [f"{key}={files[key]}" for key in keys if files[key].exists()]
        return ",".join(["jwt", *named, f"sign-method={self.method}", f"ttl={ttl}"])

    def flags(self, **more):
        return ["--auth-token", self.spec(**more)]

    def sign(self, claims, header=None):
        header = header or {"alg": self.method, "typ": "JWT"}
        signed = f"{b64url(json.dumps(header).encode())}.{b64url(json.dumps(claims).encode())}"
        return f"{signed}.{b64url(self._signature(signed.encode()))}"

    def _signature(self, data):
        if self.method == "HS256":
            return hmac.new(self.private.read_bytes(), data, hashlib.sha256).digest()
        with tempfile.NamedTemporaryFile() as message:
            message.write(data)
            message.flush()
            if self.method == "EdDSA":
                return _output("pkeyutl", "-sign", "-inkey", self.private, "-rawin", "-in", message.name)
            raw = _output("dgst", "-sha256", "-sign", self.private, message.name)
        return _two_numbers(raw) if self.method == "ES256" else raw


def _output(*arguments):
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True).stdout


def _two_numbers(der):
    """r and s of an ECDSA signature over P-256, 32 bytes each, from openssl's SEQUENCE of two INTEGERs."""
    numbers, at = [], 2
    for _ in range(2):
        length = der[at + 1]
        numbers.append(int.from_bytes(der[at + 2:at + 2 + length], "big").to_bytes(32, "big"))
        at += 2 + length
    return b"".join(numbers)
