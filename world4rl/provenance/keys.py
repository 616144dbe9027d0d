"""The key that signs decisions and models: one private key on this machine, the public keys that are trusted.

ECDSA on P-256, in PEM files. The private key never lies in the repository; the public keys of those who may decide do,
in `keys/`, so that changing who is trusted is a commit.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from world4rl import progress
from world4rl.errors import ConfigError, DataError, MachineError
from world4rl.files import locked, replacing, write_text
from world4rl.paths import Paths

PRIVATE_NAME = "world4rl-signing.pem"


def private_key_path() -> Path:
    """Where this machine's private key lies: `$WORLD4RL_SIGNING_KEY`, else below the user's configuration."""
    given = os.environ.get("WORLD4RL_SIGNING_KEY")
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path(given) if given else home / "world4rl" / PRIVATE_NAME


def ensure_key(paths: Paths) -> Path:
    """This machine's private key, made on first use; its public key is among the trusted ones of this repository.

    Whoever may write into the working tree may trust a key anyway, so one's own needs no asking. Others trust it once
    its file in `keys/` is committed.

    Raises:
        ConfigError: what lies there is no private key that this repository uses.
        MachineError: there is none and none can be written.
    """
    private = private_key_path()
    with _at_hand(private):
        if private.exists() and _trusts(paths.trusted_keys, public_text(private)):
            return private  # it may lie where nothing can be written
        with locked(private.with_suffix(".lock")):
            public = _unused(paths.trusted_keys / f"{signer()}.pem")
            if not private.exists():
                make_keys(private, public)
                progress.log(f"made a key to sign with: {private}; commit {public.parent}, that others may trust it")
            elif not _trusts(paths.trusted_keys, public_text(private)):
                write_text(public, public_text(private))
                progress.log(f"this repository trusts {private} from now on; commit {public}, that others may, too")
    return private


@contextmanager
def _at_hand(private: Path) -> Iterator[None]:
    """Says of what stands in a key's way where it stands."""
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"no key to sign with, and none can be made: {error.strerror}",
            where=error.filename or private,
            remedy="let it be read and written, or name another private key's file in WORLD4RL_SIGNING_KEY",
        ) from error


def introduce(paths: Paths, name: str) -> tuple[Path, Path]:
    """Puts this machine's key, made where there is none, among those that this repository trusts, under a name.

    Args:
        paths: The repository.
        name: Of the signer, as in `keys/NAME.pem`.

    Returns:
        The private key, and the public one: under the name that it has already, where it is trusted.

    Raises:
        ConfigError: the name cannot be used, or is taken by another key.
        MachineError: the key cannot be read or made.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.@-]*", name):
        raise ConfigError(f"{name!r} is no name for a key", where="--name", remedy="use letters, digits and . _ @ -")
    private, public = private_key_path(), paths.trusted_keys / f"{name}.pem"
    with _at_hand(private):
        if not private.exists():
            make_keys(private, public)
            return private, public
        text = public_text(private)
        for path in sorted(paths.trusted_keys.glob("*.pem")):
            if path.read_text(encoding="utf-8", errors="replace") == text:
                return private, path
        if public.exists():
            raise ConfigError("another key has this name", where=public, remedy="choose another --name")
        write_text(public, text)
    return private, public


def signer() -> str:
    """Who signs here, as a file name: user and host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without a user database
        user = f"uid{os.getuid()}"
    return re.sub(r"[^A-Za-z0-9_-]+", "-", f"{user}-{socket.gethostname().partition('.')[0]}")


def _unused(public: Path) -> Path:
    """A name beside the keys that are there: an older key of the same signer still verifies what it signed."""
    names = (public.with_stem(f"{public.stem}-{number}") for number in range(2, 1000))
    return next(path for path in (public, *names) if not path.exists())


def _trusts(trusted: Path, public: str) -> bool:
    return any(path.read_text(encoding="utf-8", errors="replace") == public for path in trusted.glob("*.pem"))


def make_keys(private: Path, public: Path) -> None:
    """Makes a key pair: the private key readable by its owner only, the public one to be committed.

    Raises:
        ConfigError: there is a key already.
    """
    for path in (private, public):
        if path.exists():
            raise ConfigError("there is a key already", where=path, remedy="use it, or name another file")
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with replacing(private) as fresh, open(os.open(fresh, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())  # half a key would stand in the way of the next one
    write_text(public, write_public(key.public_key()))


def sign(content: bytes, private: Path) -> bytes:
    """The signature of bytes.

    Raises:
        ConfigError: there is no such key, or it is no private key that this repository uses.
    """
    return _private(private).sign(content, ec.ECDSA(hashes.SHA256()))


def public_text(private: Path) -> str:
    """The public key that belongs to a private one, as PEM.

    Raises:
        ConfigError: as for `sign`.
    """
    return write_public(_private(private).public_key())


def verify(content: bytes, signature: bytes, trusted: Path) -> str:
    """The name of the trusted key that made a signature.

    Args:
        content: The signed bytes.
        signature: As `sign` gives it.
        trusted: Folder of public keys, `NAME.pem`.

    Raises:
        DataError: no trusted key made it, or one of the keys cannot be read.
    """
    for path in sorted(trusted.glob("*.pem")):
        key = read_public(path)
        try:
            key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            continue
        return path.stem
    raise DataError(
        "no trusted key made this signature",
        where=trusted,
        remedy="put the signer's public key there if you trust it; else somebody has changed what was signed",
    )


def read_public(path: Path) -> ec.EllipticCurvePublicKey:
    """A public key.

    Raises:
        DataError: it is none.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm):
        raise DataError("this is no public key", where=path, remedy="remove it or restore it with Git") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise DataError("this is no ECDSA key", where=path, remedy="make keys with `world4rl keys`")
    return key


def _private(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise ConfigError("there is no signing key", where=path, remedy="make one with `world4rl keys`") from None
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(
            "this is no private ECDSA key without a password",
            where=path,
            remedy="restore it, or move it away: `world4rl keys` makes another, and the old signatures stay valid",
        )
    return key


def write_public(key: ec.EllipticCurvePublicKey) -> str:
    """A public key as PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
