"""Signed bundles: who publishes signs them, and a service takes no other ones. The keys are made by openssl, as in deployment.md."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dssm_assets.cli import main
from dssm_assets.core.errors import InputError, SignatureError, StorageError
from dssm_assets.extras.signatures.ed25519 import read_private_key, read_public_keys
from dssm_assets.service.bundle.bundle_store import SIGNING_KEY, BundleStore, base_of, open_bundles
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.service.engine.recall_engine import ListOptions, RecallEngine
from dssm_assets.storage.local_files import find_own_folder
from dssm_assets_tests import worlds
from dssm_assets_tests.service import bundles
from dssm_assets_tests.service.bundle.stored_bundles import publish
from dssm_assets_tests.service.http.servers import Client, serving


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of private keys `key`, `other` and `rsa`, their public keys *.pub, `both.pub`, and `locked`, with a password."""
    folder = tmp_path_factory.mktemp("keys")
    for name, kind in (("key", "ed25519"), ("other", "ed25519"), ("rsa", "rsa")):
        openssl("genpkey", "-algorithm", kind, "-out", folder / name)
        openssl("pkey", "-in", folder / name, "-pubout", "-out", folder / f"{name}.pub")
    openssl("pkey", "-in", folder / "key", "-aes256", "-passout", "pass:word", "-out", folder / "locked")
    (folder / "both.pub").write_text((folder / "other.pub").read_text() + (folder / "key.pub").read_text())
    return folder


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def sign(folder: Path, key: Path) -> Path:
    """Signs a bundle that was written by hand; returns its folder."""
    manifest = folder / "manifest.json"
    openssl("pkeyutl", "-sign", "-inkey", key, "-rawin", "-in", manifest, "-out", f"{manifest}.sig")
    return folder


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1
    path.write_bytes(content)


def test_one_flipped_bit_of_any_file_is_refused(tmp_path: Path, files: Path) -> None:
    folder, keys = sign(bundles.write_bundle(tmp_path), files / "key"), read_public_keys(str(files / "both.pub"))
    for path in sorted(folder.iterdir()):
        for position in (0, 40, -1):
            flip(path, position)
            with pytest.raises(StorageError, match=folder.name):
                RecallEngine.open(str(tmp_path), keys=keys)
            flip(path, position)
    engine = RecallEngine.open(str(tmp_path), keys=keys)
    for path in folder.iterdir():
        with path.open("r+b") as handle:  # the same file, not another one in its place
            handle.write(bytes(path.stat().st_size))
    assert engine.recall_for_user("u", ListOptions(4)).item_ids == ["n0", "n2", "n1", "n3"], "what was verified is what is read"


def test_a_service_goes_on_with_the_bundle_that_was_signed(
    tmp_path: Path, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys, unsigned = read_public_keys(str(files / "key.pub")), bundles.write_bundle(tmp_path)
    with pytest.raises(SignatureError, match=r"manifest.json.sig: expected a signature .*, got no such file"):
        LiveEngine(str(tmp_path), keys=keys)
    first = sign(unsigned, files / "key").name
    spoiled: dict[str, Callable[[Path], object]] = {
        "got no such file": lambda folder: (folder / "manifest.json.sig").unlink(),
        "manifest.json.sig is not a regular file": lambda folder: replace_by_pipe(folder / "manifest.json.sig"),
        "item_ids.arrow has 0 bytes": lambda folder: replace_by_pipe(folder / "item_ids.arrow"),
        "by another key": lambda folder: sign(folder, files / "other"),
        "item_index.faiss has another sha256": lambda folder: flip(folder / "item_index.faiss", -1),
        "": lambda folder: None,
    }
    live = LiveEngine(str(tmp_path), keys=keys)
    with serving(live) as port:
        client = Client(port)
        for number, (reason, spoil) in enumerate(spoiled.items(), 13):
            folder = sign(bundles.write_bundle(tmp_path, f"2024-01-{number}"), files / "key")
            spoil(folder)
            with caplog.at_level(logging.ERROR):
                assert live.refresh() == (not reason)
            assert reason in caplog.messages[-1]
            health = client.get("/health")[1]
            assert reason in (health["bundle_fault"] or "")
            expected = (first, folder.name) if reason else (folder.name, None)
            assert (health["bundle_id"], health["refused_bundle_id"]) == expected
            assert client.get("/recall?user_id=u&k=1")[1]["bundle_id"] == expected[0]
        client.close()


def test_copies_of_a_killed_service_are_removed(tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    own = find_own_folder(tmp_path / "temporary", makes=True) or tmp_path
    (own / "bundle-left" / "deep").mkdir(parents=True)
    keys, folder = read_public_keys(str(files / "key.pub")), sign(bundles.write_bundle(tmp_path), files / "key")
    store = BundleStore(str(tmp_path), keys=keys)
    served, fresh = store.fetch(folder.name), store.fetch(folder.name)
    assert {*own.iterdir()} == {served.folder, fresh.folder, own / ".dssm-assets"}


def test_a_file_that_has_become_large_is_refused_before_any_is_copied(tmp_path: Path, files: Path) -> None:
    keys, folder = read_public_keys(str(files / "key.pub")), sign(bundles.write_bundle(tmp_path), files / "key")
    os.truncate(folder / "popular_items.arrow", 2 << 30)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"popular_items\.arrow has 2147483648 bytes instead of"):
            BundleStore(str(tmp_path), keys=keys).fetch(folder.name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_recall_takes_a_key(tmp_path: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sign(bundles.write_bundle(tmp_path), files / "key")
    asked = ["recall", "--bundle", str(tmp_path), "--user-id", "u", "--require-signature"]
    assert [main([*asked, str(files / name)]) for name in ("key.pub", "other.pub")] == [0, 1]
    assert "a signature of another manifest or by another key. To fix: publish its day again" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*asked, str(files / "key.pub"), "--no-verify"])


@pytest.mark.parametrize(
    ("read", "name", "got"),
    [
        (read_public_keys, "key", "none"),
        (read_public_keys, "rsa.pub", "another kind"),
        (read_public_keys, "absent", "No such file"),
        (read_private_key, "key.pub", "got"),
        (read_private_key, "rsa", "another kind"),
        (read_private_key, "locked", "encrypted"),
    ],
)
def test_a_file_that_is_no_key_is_named(files: Path, read: Callable[[str], object], name: str, got: str) -> None:
    with pytest.raises(InputError, match=f"{files / name}: expected .* key.* of Ed25519 .*{got}"):
        read(str(files / name))


def test_who_publishes_signs_and_builds_on_nothing_else(tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = worlds.write_config(tmp_path)
    first = publish(open_bundles(loaded), "unsigned").bundle_id
    monkeypatch.setenv(SIGNING_KEY, str(files / "key"))
    publisher = open_bundles(loaded)
    reader = BundleStore(publisher.root, keys=read_public_keys(str(files / "key.pub")))

    def publish_delta(base: str) -> str:
        with publisher.staging() as folder:
            (folder / "file0").write_text("fresh 0")
            return publisher.publish(folder, {"ds": "2024-01-02", "delta": {}}, 9, base=base).bundle_id

    for refuse in (publish_delta, publisher.rollback, reader.fetch):
        with pytest.raises(SignatureError, match="got no such file"):
            refuse(first)
    signed = publish(publisher, "signed").bundle_id
    assert base_of(reader.fetch(publish_delta(signed)).manifest) == signed
    assert publisher.rollback(signed).bundle_id == reader.fetch(signed).bundle_id
    assert publish(publisher, "unsigned").bundle_id == first, "the same bundle, with a signature now"
    assert reader.fetch(first).manifest["mark"] == "unsigned"
    sign(Path(publisher.folder(signed)), files / "other")
    with pytest.raises(SignatureError, match="by another key"):
        publish_delta(signed)
