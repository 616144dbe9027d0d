"""Signatures of models (`model-signing`, this machine's key, no network), and their verification before a model is
loaded.

A signature lies in `data/signatures`, by the digest of the model that it is about: a model is an output of DVC and
must not change when it is signed. `data/signatures/places` says which signed model belongs in which folder, so that
a changed byte is not taken for a model that nobody signed. Whoever writes a new model into a folder takes that back,
until the new model is recorded and signed.

What a signature proves: these are the bytes that the holder of a trusted key (`keys/`) recorded. It does not prove
that the training was sound: that is for the run records and the gates.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Literal

from world4rl.errors import ConfigError, DataError
from world4rl.files import replacing, write_text
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_folder

Policy = Literal["require", "when-present", "off"]
TRUSTED = "WORLD4RL_TRUSTED_KEYS"  # a folder of public keys, on a machine that has models and no repository
RECORD = (
    "restore the folder (`dvc checkout`, `dvc pull`); if DVC itself put it there (an old result came back), "
    "`world4rl record` signs it"
)
_policy: Policy = "when-present"


def use(policy: Policy) -> None:
    """What this process asks of the models that it loads.

    Args:
        policy: `require`: every model is signed by a trusted key. `when-present`: a model that was signed must still
            be what was signed; one that nobody has signed yet, as between its training and its record, is loaded.
            `off`: nothing is verified.
    """
    global _policy
    _policy = policy


def sign_model(folder: Path, digest: str, private: Path, paths: Paths) -> Path:
    """Signs a model, unless this content was signed before, and says that it belongs where it lies.

    Args:
        folder: The model, below the root.
        digest: Its `digest_folder`.
        private: The key.
        paths: Where signatures lie.

    Returns:
        The signature.

    Raises:
        ConfigError: the key cannot be used.
    """
    signature = paths.signature(digest)
    if not signature.exists():
        from model_signing import signing

        try:
            signer = signing.Config().set_hashing_config(_hashing()).use_elliptic_key_signer(private_key=private)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cannot sign with this key: {error}", where=private, remedy="see docs/lineage.md"
            ) from None
        with replacing(signature) as fresh:
            signer.sign(folder, fresh)
    place = paths.signed_place(folder.relative_to(paths.root))
    if _expected(place) != digest:
        write_text(place, digest + "\n")
    return signature


def is_signed(folder: Path, digest: str, paths: Paths) -> bool:
    """Whether a model of this digest is signed and said to belong in its folder; reads none of its files."""
    place = paths.signed_place(folder.relative_to(paths.root))
    return paths.signature(digest).exists() and _expected(place) == digest


def forget(folder: Path) -> None:
    """Takes back which model belongs in a folder: a new one is about to be written there."""
    paths = _repository(folder)
    if paths is not None:
        paths.signed_place(folder.resolve().relative_to(paths.root)).unlink(missing_ok=True)


def verify_model(folder: Path) -> str | None:
    """Makes sure that a model may be loaded.

    Args:
        folder: Of the model. Its signature is looked for in the repository that it lies in; where it lies in none,
            beside it, and only if the variable `WORLD4RL_TRUSTED_KEYS` names a folder of public keys.

    Returns:
        The name of the trusted key that signed it; None where nobody did, and nobody needs to.

    Raises:
        DataError: its files are not those that were signed, or no trusted key signed them.
    """
    if _policy == "off" or not folder.is_dir():  # the loader says better what is missing
        return None
    paths = _repository(folder)
    return _verify_alone(folder) if paths is None else _verify_within(folder, paths)


def _verify_within(folder: Path, paths: Paths) -> str | None:
    """Of a model in a repository, which knows which one belongs there."""
    expected = _expected(paths.signed_place(folder.resolve().relative_to(paths.root)))
    if expected is not None and paths.signature(expected).exists():
        try:
            return _verify(folder, paths.signature(expected), paths.trusted_keys)
        except DataError as error:
            problem = error
        other = paths.signature(digest_folder(folder))
        if other != paths.signature(expected) and other.exists():  # another signed one lies there, an older one perhaps
            return _verify(folder, other, paths.trusted_keys)
        raise problem
    if (signature := paths.signature(digest_folder(folder))).exists():
        return _verify(folder, signature, paths.trusted_keys)
    if expected is not None:
        raise DataError(
            "the signature of the model is missing", where=folder, remedy="`world4rl record` signs it again"
        )
    _refuse_if_required(folder)
    return None


def _refuse_if_required(folder: Path) -> None:
    if _policy == "require":
        raise DataError(
            "nobody has signed this model",
            where=folder,
            remedy="`world4rl record` signs what DVC knows; `signatures: when-present` in params.yaml asks for less",
        )


def _verify_alone(folder: Path) -> str | None:
    """Of a copy outside of any repository, as a robot has: it is asked about where `TRUSTED` says whom to trust."""
    trusted = os.environ.get(TRUSTED)
    if not trusted:
        _refuse_if_required(folder)
        return None
    signature = beside(folder)
    if not signature.is_file():
        raise DataError(
            f"the model's signature is missing, and {TRUSTED} asks for it",
            where=signature,
            remedy="`world4rl deploy --out` puts the policy and its signature there: copy both",
        )
    return _verify(folder, signature, Path(trusted))


def beside(folder: Path) -> Path:
    """Where the signature of a copy outside of any repository lies."""
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}.sig")


def _verify(folder: Path, signature: Path, trusted: Path) -> str:
    """The name of the trusted key that signed a model."""
    from model_signing import verifying

    public = _key(signature, trusted)
    try:
        verifier = verifying.Config().set_hashing_config(_hashing()).use_elliptic_key_verifier(public_key=public)
        verifier.verify(folder, signature)
    except Exception as error:  # of several libraries: whatever it is, it did not verify
        why = str(error).removeprefix("Signature mismatch: ").strip("[]'\"") or "the signature does not verify"
        raise DataError(f"the model is not what was signed: {why}", where=folder, remedy=RECORD) from None
    return public.stem


def _key(signature: Path, trusted: Path) -> Path:
    """The trusted key that a signature names."""
    try:
        bundle = json.loads(signature.read_bytes())
        hint = bundle["verificationMaterial"]["publicKey"]["hint"]
        envelope = bundle["dsseEnvelope"]
        encoded = [envelope["payload"], *(one["sig"] for one in envelope["signatures"])]
        if any(base64.b64encode(base64.b64decode(text)).decode() != text for text in encoded):
            raise ValueError("there are bits in it that say nothing")  # no program writes them: somebody changed it
    except (ValueError, KeyError, TypeError):
        remedy = "restore it: git restore --source refs/world4rl/lineage -- data/signatures"
        raise DataError("this is no signature", where=signature, remedy=remedy) from None
    for public in sorted(trusted.glob("*.pem")):
        if hashlib.sha256(public.read_bytes()).hexdigest() == hint:
            return public
    raise DataError(
        "no trusted key made this signature",
        where=signature,
        remedy=f"put the signer's public key into {trusted} if you trust it; else train the model again",
    )


def _hashing():  # type: ignore[no-untyped-def]  # the library is imported late
    from model_signing import hashing

    # Every file counts, also one that Git would not look at; DVC may link files from its cache.
    return hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False).set_allow_symlinks(True)


def _repository(folder: Path) -> Paths | None:
    """The repository with signatures that a folder lies in."""
    for parent in folder.resolve().parents:
        if Paths(parent).signatures.is_dir():
            return Paths(parent)
    return None


def _expected(place: Path) -> str | None:
    try:
        return place.read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
