"""Ed25519 signatures of bundle manifests; a manifest holds the digests of all other files.

A signature file holds just the 64 bytes, so that openssl can make and check it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dssm_assets.core.errors import ConfigError, Fault, InputError, SignatureError
from dssm_assets.storage.layout import BUNDLE_SIGNATURE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_PUBLIC_KEY: Final = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


@dataclass(frozen=True)
class Ed25519Keys:
    """Keys for bundles; see `BundleKeys`.

    Attributes:
        trusted: public keys; a signature by any of them is valid.
        file: the file they were read from.
        own: the signing key; None if bundles are only read.
    """

    trusted: tuple[Ed25519PublicKey, ...]
    file: str
    own: Ed25519PrivateKey | None = None

    def sign(self, manifest: bytes) -> bytes | None:
        """Returns the signature of a manifest, 64 bytes; None without a signing key."""
        return None if self.own is None else self.own.sign(manifest)

    def check(self, bundle_id: str, manifest: bytes, signature: bytes | None) -> None:
        """Raises a SignatureError unless a trusted key has signed the manifest; `signature` may be None."""
        from cryptography.exceptions import InvalidSignature

        for key in self.trusted if signature is not None else ():
            with suppress(InvalidSignature):
                key.verify(signature or b"", manifest)
                return
        where, expected = f"bundle {bundle_id}, {BUNDLE_SIGNATURE}", f"a signature of its manifest by a key of {self.file}"
        got = "no such file" if signature is None else "one of another manifest or by another key"
        remedy = "publish its day again with that key, a whole bundle before a delta"
        raise SignatureError(str(Fault(where, expected, got, remedy)))


def read_public_keys(file: str) -> Ed25519Keys:
    """Returns the public keys in a PEM file: several while one replaces another.

    Raises:
        ConfigError: cryptography is not installed.
        InputError: the file cannot be read, or holds something else.
    """
    with _reading(file, "public keys of Ed25519 (PEM)"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        found = [load_pem_public_key(text) for text in _PUBLIC_KEY.findall(Path(file).read_bytes())]
        keys = tuple(key for key in found if isinstance(key, Ed25519PublicKey))
        if not keys or len(keys) < len(found):
            raise ValueError("none" if not found else "one of another kind")
    return Ed25519Keys(keys, file)


def read_private_key(file: str) -> Ed25519Keys:
    """Reads a private key from a PEM file.

    Bundles are signed with the key; only signatures made with the key itself are trusted. Raises the errors of `read_public_keys`.
    """
    with _reading(file, "a private key of Ed25519 (PEM) without a password"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        key = load_pem_private_key(Path(file).read_bytes(), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("one of another kind")
    return Ed25519Keys((key.public_key(),), file, key)


@contextmanager
def _reading(file: str, expected: str) -> Iterator[None]:
    if find_spec("cryptography") is None:
        remedy = "run pip install 'dssm-assets[signatures]', or use no keys of bundles"
        raise ConfigError(Fault("signatures of bundles", "the package cryptography", "not installed", remedy))
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        yield
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        remedy = "openssl genpkey -algorithm ed25519 makes one"
        raise InputError(Fault(f"key of bundles, {file}", expected, str(error), remedy)) from error
