"""Signed bundles: who publishes signs them, and a service takes no other ones."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from dssm_assets.cli import main
from dssm_assets.core.errors import InputError, SignatureError, StorageError
from dssm_assets.extras.signatures.ed25519 import Ed25519Keys, read_private_key, read_public_keys
from dssm_assets.serving.live import LiveEngine
from dssm_assets.serving.recall_engine import ListOptions, RecallEngine
from dssm_assets.storage.bundles import SIGNING_KEY, BundleStore, Published, base_of, open_bundles
from dssm_assets_tests import worlds
from dssm_assets_tests.serving import bundles
from dssm_assets_tests.serving.servers import Client, serving
from dssm_assets_tests.storage.bundles import publish


def private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of PEM files: key, key.pub, other, other.pub, and both.pub with the public keys of both."""
    folder = tmp_path_factory.mktemp("keys")
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    for name, content in (
        ("key", private_pem(key)),
        ("key.pub", public_pem(key)),
        ("other", private_pem(other)),
        ("other.pub", public_pem(other)),
        ("both.pub", public_pem(other) + b"the one before:\n" + public_pem(key)),
        ("empty", b""),
        (
            "rsa.pub",
            generate_private_key(65537, 2048).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        ),
        ("locked", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))),
    ):
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def public(files: Path) -> Ed25519Keys:
    return read_public_keys(str(files / "key.pub"))


def sign(folder: Path, key: Path) -> Path:
    """Signs a bundle that was written by hand; returns its folder."""
    signature = read_private_key(str(key)).sign((folder / "manifest.json").read_bytes())
    assert signature is not None
    (folder / "manifest.json.sig").write_bytes(signature)
    return folder


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1
    path.write_bytes(content)


def write_signed(root: Path, files: Path, ds: str = "2024-01-12") -> Path:
    return sign(bundles.write_bundle(root, ds), files / "key")


def test_one_flipped_bit_of_any_file_is_refused(tmp_path: Path, files: Path, public: Ed25519Keys) -> None:
    folder = write_signed(tmp_path, files)
    assert RecallEngine.open(str(tmp_path), keys=public).recall_for_user("u", ListOptions(1)).item_ids == ["n0"]
    for path in sorted(folder.iterdir()):
        for position in (0, 40, -1):
            flip(path, position)
            with pytest.raises(StorageError, match=folder.name):
                RecallEngine.open(str(tmp_path), keys=public)
            flip(path, position)
    assert RecallEngine.open(str(tmp_path), keys=public).bundle.bundle_id == folder.name


@pytest.mark.parametrize("key", ["key", "other"])
def test_any_of_the_trusted_keys_will_do(tmp_path: Path, files: Path, key: str) -> None:
    sign(bundles.write_bundle(tmp_path), files / key)
    RecallEngine.open(str(tmp_path), keys=read_public_keys(str(files / "both.pub")))


def test_a_service_goes_on_with_the_bundle_that_was_signed(
    tmp_path: Path, files: Path, public: Ed25519Keys, caplog: pytest.LogCaptureFixture
) -> None:
    bundles.write_bundle(tmp_path)
    with pytest.raises(SignatureError, match=r"manifest.json.sig: expected a signature .*, got no such file"):
        LiveEngine(str(tmp_path), keys=public)
    first = write_signed(tmp_path / "served", files).name
    live = LiveEngine(str(tmp_path / "served"), keys=public)
    spoiled: dict[str, Callable[[Path], object]] = {
        "got no such file": lambda folder: (folder / "manifest.json.sig").unlink(),
        "by another key": lambda folder: sign(folder, files / "other"),
        "item_index.faiss has another sha256": lambda folder: flip(folder / "item_index.faiss", -1),
    }
    with serving(live) as port:
        client = Client(port)
        for number, (reason, spoil) in enumerate(spoiled.items(), 13):
            refused = write_signed(tmp_path / "served", files, f"2024-01-{number}")
            spoil(refused)
            with caplog.at_level(logging.ERROR):
                assert not live.refresh()
            assert reason in caplog.records[-1].message
            health = client.get("/health")[1]
            assert (health["bundle_id"], health["refused_bundle_id"]) == (first, refused.name)
            assert reason in health["bundle_fault"]
            assert client.get("/recall?user_id=u&k=1")[1]["bundle_id"] == first
        last = write_signed(tmp_path / "served", files, "2024-01-20").name
        assert live.refresh()
        health = client.get("/health")[1]
        assert (health["bundle_id"], health["status"], health["bundle_fault"]) == (last, "ok", None)
        client.close()


def test_what_was_verified_is_what_is_read(tmp_path: Path, files: Path, public: Ed25519Keys) -> None:
    folder = write_signed(tmp_path, files)
    engine = RecallEngine.open(str(tmp_path), keys=public)
    for path in folder.iterdir():
        with path.open("r+b") as handle:  # the same file, not another one in its place
            handle.write(bytes(path.stat().st_size))
    assert engine.recall_for_user("u", ListOptions(4)).item_ids == ["n0", "n2", "n1", "n3"]


def test_recall_takes_a_key(tmp_path: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_signed(tmp_path, files)
    asked = ["recall", "--bundle", str(tmp_path), "--user-id", "u", "--require-signature"]
    assert main([*asked, str(files / "key.pub")]) == 0
    assert main([*asked, str(files / "other.pub")]) == 1
    assert "one of another manifest or by another key. To fix: publish its day again" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*asked, str(files / "key.pub"), "--no-verify"])


@pytest.mark.parametrize(
    ("read", "name", "got"),
    [
        (read_public_keys, "empty", "none"),
        (read_public_keys, "key", "none"),
        (read_public_keys, "rsa.pub", "another kind"),
        (read_public_keys, "absent", "No such file"),
        (read_private_key, "key.pub", "got"),
        (read_private_key, "locked", "encrypted"),
    ],
)
def test_a_file_that_is_no_key_is_named(files: Path, read: Callable[[str], object], name: str, got: str) -> None:
    with pytest.raises(InputError, match=f"{files / name}: expected .* key.* of Ed25519 .*{got}"):
        read(str(files / name))


@pytest.fixture
def publisher(tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> BundleStore:
    """Returns the bundles of a configuration, of one who has a key; the first one, mark "unsigned", was published without it."""
    loaded = worlds.write_config(tmp_path)
    publish(open_bundles(loaded), "unsigned")
    monkeypatch.setenv(SIGNING_KEY, str(files / "key"))
    return open_bundles(loaded)


def publish_delta(store: BundleStore, base: str) -> Published:
    with store.staging() as folder:
        (folder / "file0").write_text("fresh 0")
        return store.publish(folder, {"ds": "2024-01-02", "delta": {}}, 9, base=base)


def test_who_publishes_signs_and_builds_on_nothing_else(publisher: BundleStore, public: Ed25519Keys) -> None:
    reader, first = BundleStore(publisher.root, keys=public), publisher.current_id()
    for refuse in (lambda: publish_delta(publisher, first), lambda: publisher.rollback(first), lambda: reader.fetch(first)):
        with pytest.raises(SignatureError, match="got no such file"):
            refuse()
    signed = publish(publisher, "signed").bundle_id
    delta = publish_delta(publisher, signed)
    assert base_of(reader.fetch(delta.bundle_id).manifest) == signed
    assert publisher.rollback(signed).bundle_id == reader.fetch(signed).bundle_id
    assert publish(publisher, "unsigned").bundle_id == first, "the same bundle, with a signature now"
    assert reader.fetch(first).manifest["mark"] == "unsigned"


def test_a_delta_of_a_forged_base_is_refused(publisher: BundleStore, files: Path) -> None:
    base = publish(publisher, "signed").bundle_id
    sign(Path(publisher.folder(base)), files / "other")
    with pytest.raises(SignatureError, match="by another key"):
        publish_delta(publisher, base)
    assert publisher.current_id() == base
