"""Recomputes the golden vectors, and opens the golden databases, by docs/envelope.md alone.

Shares no code with the crate: its cryptography is Python's `cryptography`.

usage: recompute.py src/seal/golden.json tests/golden/database-1.json ...
"""

import hashlib
import json
import struct
import sys

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

RECORD = b"slack-installs record v1"
DATA_KEY = b"slack-installs data key v1"
FINGERPRINT = b"slack-installs master key fingerprint"


def lp(field):
    return struct.pack(">I", len(field)) + field


def hkdf(salt, key, info, length):
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(key)


def record_context(app, partition, slot, kind, version, due_at, metadata):
    due = b"" if due_at is None else struct.pack(">Q", due_at)
    texts = [text.encode() for text in (app, partition, slot, kind)]
    digest = hashlib.sha256(metadata.encode()).digest()
    return b"".join(lp(field) for field in [*texts, version, due, digest])


def derive(purpose, key, context, prefix):
    header = hashlib.sha256(lp(purpose) + lp(prefix) + lp(context)).digest()
    okm = hkdf(prefix[20:52], key, purpose + header, 76)
    commitment = HMAC(okm[44:], SHA256())
    commitment.update(header)
    return header, okm[:32], okm[32:44], commitment


def seal(purpose, key, key_id, salt, context, plaintext):
    prefix = b"SLI1" + key_id + salt
    header, aes_key, nonce, commitment = derive(purpose, key, context, prefix)
    return prefix + commitment.finalize() + AESGCM(aes_key).encrypt(nonce, plaintext, header)


def unseal(purpose, key, context, envelope):
    if len(envelope) < 100 or envelope[:4] != b"SLI1":
        raise ValueError("not an envelope")
    header, aes_key, nonce, commitment = derive(purpose, key, context, envelope[:52])
    commitment.verify(envelope[52:84])
    return AESGCM(aes_key).decrypt(nonce, envelope[84:], header)


def fingerprint(master_key):
    return hkdf(FINGERPRINT, master_key, b"", 16)


def keyring_row(wrapped):
    return (b"SLK1" + lp(wrapped)).ljust(100, b"\0")


def wrapped_in(row):
    (length,) = struct.unpack(">I", row[4:8])
    if row[:4] != b"SLK1" or len(row) < 8 + length:
        raise ValueError("not a row of a keyring")
    return row[8 : 8 + length]


def check(name, what, ours, theirs):
    if ours != theirs:
        sys.exit(f"{name}: {what} differs:\n  here  {ours!r}\n  there {theirs!r}")


def check_refused(name, *arguments):
    try:
        unseal(*arguments)
    except (InvalidSignature, InvalidTag, ValueError):
        return
    sys.exit(f"{name}: opens although something was changed")


def of_hex(entry, *names):
    return [bytes.fromhex(entry[name]) for name in names]


def check_vector(vector):
    names = ["data_key", "key_id", "salt", "version", "plaintext", "sealed"]
    key, key_id, salt, version, plaintext, sealed = of_hex(vector, *names)
    where = [vector[field] for field in ("app", "partition", "slot", "kind")]
    context = record_context(*where, version, vector["due_at"], vector["metadata"])
    ours = seal(RECORD, key, key_id, salt, context, plaintext)
    check(vector["name"], "sealed", ours.hex(), sealed.hex())
    check(vector["name"], "plaintext", unseal(RECORD, key, context, sealed), plaintext)
    check_refused(vector["name"], RECORD, key, context + b"\0", sealed)
    check_refused(vector["name"], RECORD, key, context, sealed[:-1] + bytes([sealed[-1] ^ 1]))


def check_wrapped_key(entry):
    names = ["master_key", "key_id", "data_key", "salt", "wrapped", "row", "fingerprint"]
    master, key_id, data_key, salt, wrapped, row, shown = of_hex(entry, *names)
    context = key_id + entry["app"].encode()
    check(entry["name"], "fingerprint", fingerprint(master).hex(), shown.hex())
    ours = seal(DATA_KEY, master, shown, salt, context, data_key)
    check(entry["name"], "wrapped", ours.hex(), wrapped.hex())
    check(entry["name"], "row", keyring_row(wrapped).hex(), row.hex())
    check(entry["name"], "data key", unseal(DATA_KEY, master, context, wrapped), data_key)


def open_database(database):
    """Every row's plaintext, from nothing but the rows and the master key."""
    app, master = database["app"], bytes.fromhex(database["master_key"])
    keys = {}
    for row in database["rows"]:
        if row["partition"] == f"{app}/keyring":
            key_id = bytes.fromhex(json.loads(row["metadata"])["key"])
            wrapped = wrapped_in(bytes.fromhex(row["sealed"]))
            keys[key_id] = unseal(DATA_KEY, master, key_id + app.encode(), wrapped)
    for row in database["rows"]:
        sealed, version = of_hex(row, "sealed", "version")
        if sealed[:4] == b"SLK1":
            yield row, None
            continue
        kind = json.loads(row["metadata"])["kind"]
        place = (app, row["partition"], row["slot"], kind)
        context = record_context(*place, version, row["due_at"], row["metadata"])
        yield row, unseal(RECORD, keys[sealed[4:20]], context, sealed).decode()


def main(golden, *databases):
    with open(golden, encoding="utf-8") as file:
        golden = json.load(file)
    for vector in golden["vectors"]:
        check_vector(vector)
    for entry in golden["wrapped_keys"]:
        check_wrapped_key(entry)
    rows = 0
    for path in databases:
        with open(path, encoding="utf-8") as file:
            database = json.load(file)
        for row, plaintext in open_database(database):
            name = f"{path}: {row['partition']} {row['slot']}"
            check(name, "plaintext", plaintext, row["plaintext"])
            rows += 1
    vectors, keys = len(golden["vectors"]), len(golden["wrapped_keys"])
    print(f"recomputed: {vectors} vectors, {keys} wrapped keys, {rows} rows")


if __name__ == "__main__":
    main(*sys.argv[1:])
