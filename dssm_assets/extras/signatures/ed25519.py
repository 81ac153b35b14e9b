"""Ed25519 signatures of the manifests of bundles; a manifest holds the digests of all other files.

The file of a signature holds its 64 bytes and nothing else, so that openssl can make and check it too.
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
    """Keys of bundles; see `BundleKeys`.

    Attributes:
        trusted: a signature by any is right.
        file: where they were read.
        own: signs; None where bundles are only read.
    """

    trusted: tuple[Ed25519PublicKey, ...]
    file: str
    own: Ed25519PrivateKey | None = None

    def sign(self, manifest: bytes) -> bytes | None:
        """Returns the signature of a manifest, 64 bytes; None without a key that signs."""
        return None if self.own is None else self.own.sign(manifest)

    def check(self, bundle_id: str, manifest: bytes, signature: bytes | None) -> None:
        """Raises a SignatureError unless one of the trusted keys has signed the manifest; `signature` is None if there is none."""
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
    """Returns the keys of a PEM file: several while one replaces another.

    Raises:
        ConfigError: cryptography is not installed.
        InputError: it cannot be read, or holds something else.
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
    """Returns the key of a PEM file, which signs and alone is trusted; raises as `read_public_keys`."""
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
