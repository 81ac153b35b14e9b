"""Ed25519 signatures of bundle manifests. A manifest holds the digests of all other files of its bundle.

A signature file holds the 64 bytes of the signature and nothing else, so openssl can also make and check it.
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
    """Keys that sign bundles and check their signatures, a `BundleKeys`.

    Attributes:
        trusted: public keys. A signature by any trusted key is valid.
        file: the file that the keys were read from.
        own: the signing key. None: bundles are only read.
    """

    trusted: tuple[Ed25519PublicKey, ...]
    file: str
    own: Ed25519PrivateKey | None = None

    def sign(self, manifest: bytes) -> bytes | None:
        """Returns the signature of a manifest, 64 bytes. None: there is no signing key."""
        return None if self.own is None else self.own.sign(manifest)

    def check(self, bundle_id: str, manifest: bytes, signature: bytes | None) -> None:
        """Raises a SignatureError unless a trusted key has signed the manifest. `signature` is None if the bundle has none."""
        from cryptography.exceptions import InvalidSignature

        for key in self.trusted if signature is not None else ():
            with suppress(InvalidSignature):
                key.verify(signature or b"", manifest)
                return
        where, expected = f"bundle {bundle_id}, {BUNDLE_SIGNATURE}", f"a signature of its manifest by a key in {self.file}"
        got = "no such file" if signature is None else "a signature of another manifest or by another key"
        remedy = "publish its day again with that key, a whole bundle before a delta"
        raise SignatureError(str(Fault(where, expected, got, remedy)))


def read_public_keys(file: str) -> Ed25519Keys:
    """Reads the public keys in a PEM file. It has several while a new key replaces an old one.

    Raises:
        ConfigError: cryptography is not installed.
        InputError: the file cannot be read, or does not hold Ed25519 keys alone.
    """
    with _reading(file, "public keys of Ed25519 (PEM)"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        found = [load_pem_public_key(text) for text in _PUBLIC_KEY.findall(Path(file).read_bytes())]
        keys = tuple(key for key in found if isinstance(key, Ed25519PublicKey))
        if not keys or len(keys) < len(found):
            raise ValueError("none" if not found else "a key of another kind")
    return Ed25519Keys(keys, file)


def read_private_key(file: str) -> Ed25519Keys:
    """Reads a private key from a PEM file, to sign bundles. Signatures by this key are the only ones trusted.

    Raises the errors of `read_public_keys`.
    """
    with _reading(file, "a private key of Ed25519 (PEM) without a password"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        key = load_pem_private_key(Path(file).read_bytes(), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("a key of another kind")
    return Ed25519Keys((key.public_key(),), file, key)


@contextmanager
def _reading(file: str, expected: str) -> Iterator[None]:
    if find_spec("cryptography") is None:
        remedy = "run pip install 'dssm-assets[signatures]', or do not configure keys for bundles"
        raise ConfigError(Fault("signatures of bundles", "the package cryptography", "not installed", remedy))
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        yield
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        remedy = "make a key with openssl genpkey -algorithm ed25519"
        raise InputError(Fault(f"key file of bundles, {file}", expected, str(error), remedy)) from error
