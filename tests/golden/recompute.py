"""Recomputes the golden vectors and opens the golden databases. Implements docs/envelope.md.

Shares no code with the crate. Uses the Python package `cryptography`.

usage: recompute.py src/seal/golden.json tests/golden/database-1.json ...
"""

import hmac
import json
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

RECORD = b"slack-installs record v1"
DATA_KEY = b"slack-installs data key v1"
MANIFEST = b"slack-installs manifest v1"
EXTRACT = b"slack-installs envelope v1"
FINGERPRINT = b"slack-installs master key fingerprint"


def lp(field):
    return struct.pack(">I", len(field)) + field


def hkdf(salt, key, info, length):
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(key)


def context_of(app, partition, slot="", kind="", version=b"", due=None, metadata=""):
    lane = "" if due is None else due["lane"]
    at = b"" if due is None else struct.pack(">Q", due["at"])
    texts = [text.encode() for text in (app, partition, slot, kind)]
    fields = [*texts, version, lane.encode(), at, metadata.encode()]
    return {"app": texts[0], "partition": texts[1], "bytes": b"".join(lp(field) for field in fields)}


def context_of_key(app, key_id, epoch):
    return context_of(app, key_id, version=struct.pack(">Q", epoch))


def derive(purpose, key, key_id, context):
    fields = (purpose, key_id, context["app"], context["partition"])
    info = b"".join(lp(field) for field in fields)
    okm = hkdf(EXTRACT, key, info, 96)
    return okm[:32], okm[32:64], okm[64:]


def seal(purpose, key, key_id, random, context, plaintext):
    aes_key, commitment, nonce_key = derive(purpose, key, key_id, context)
    header = b"SLE1" + key_id + commitment
    aad = header + context["bytes"]
    message = lp(random) + lp(aad) + lp(plaintext)
    nonce = hmac.digest(nonce_key, message, "sha256")[:12]
    return header + nonce + AESGCM(aes_key).encrypt(nonce, plaintext, aad)


def unseal(purpose, key, context, envelope):
    if len(envelope) < 80 or envelope[:4] != b"SLE1":
        raise ValueError("not an envelope")
    aes_key, commitment, _ = derive(purpose, key, envelope[4:20], context)
    if not hmac.compare_digest(commitment, envelope[20:52]):
        raise ValueError("sealed under another key")
    aad = envelope[:52] + context["bytes"]
    return AESGCM(aes_key).decrypt(envelope[52:64], envelope[64:], aad)


def fingerprint(master_key):
    return hkdf(FINGERPRINT, master_key, b"", 16)


def keyring_row(wrapped):
    return b"SLK1" + wrapped


def wrapped_in(row):
    if row[:4] != b"SLK1":
        raise ValueError("not a keyring row")
    return row[4:]


def check(name, what, ours, theirs):
    if ours != theirs:
        sys.exit(f"{name}: {what} differs:\n  recomputed {ours!r}\n  expected   {theirs!r}")


def check_refused(name, *arguments):
    try:
        unseal(*arguments)
    except (InvalidTag, ValueError):
        return
    sys.exit(f"{name}: the envelope opens although it was changed")


def of_hex(entry, *names):
    return [bytes.fromhex(entry[name]) for name in names]


def check_vector(vector):
    names = ["data_key", "key_id", "random", "version", "plaintext", "sealed"]
    key, key_id, random, version, plaintext, sealed = of_hex(vector, *names)
    where = [vector[field] for field in ("app", "partition", "slot", "kind")]
    context = context_of(*where, version, vector["due"], vector["metadata"])
    ours = seal(RECORD, key, key_id, random, context, plaintext)
    check(vector["name"], "sealed", ours.hex(), sealed.hex())
    check(vector["name"], "plaintext", unseal(RECORD, key, context, sealed), plaintext)
    other = context_of(*where, version, vector["due"], vector["metadata"] + " ")
    check_refused(vector["name"], RECORD, key, other, sealed)
    check_refused(vector["name"], RECORD, bytes(31) + b"!", context, sealed)
    check_refused(vector["name"], RECORD, key, context, sealed[:-1] + bytes([sealed[-1] ^ 1]))


def check_wrapped_key(entry):
    names = ["master_key", "data_key", "random", "wrapped", "row", "fingerprint"]
    master, data_key, random, wrapped, row, shown = of_hex(entry, *names)
    context = context_of_key(entry["app"], entry["key_id"], entry["epoch"])
    check(entry["name"], "fingerprint", fingerprint(master).hex(), shown.hex())
    ours = seal(DATA_KEY, master, shown, random, context, data_key)
    check(entry["name"], "wrapped", ours.hex(), wrapped.hex())
    check(entry["name"], "row", keyring_row(wrapped).hex(), row.hex())
    check(entry["name"], "data key", unseal(DATA_KEY, master, context, wrapped), data_key)


def open_database(database):
    """Yields every row with its plaintext. Uses only the rows and the master key."""
    app, master = database["app"], bytes.fromhex(database["master_key"])
    keys, epochs = {}, {}
    for row in database["rows"]:
        facts = json.loads(row["metadata"])
        if facts["kind"] == "data_key":
            key_id, epoch = facts["key"], facts["epoch"]
            check(row["slot"], "slot", row["slot"], f"key/{key_id}")
            wrapped = wrapped_in(bytes.fromhex(row["sealed"]))
            context = context_of_key(app, key_id, epoch)
            keys[bytes.fromhex(key_id)] = unseal(DATA_KEY, master, context, wrapped)
            epochs[key_id] = epoch
    for row in database["rows"]:
        sealed, version = of_hex(row, "sealed", "version")
        if sealed[:4] == b"SLK1":
            yield row, None
            continue
        kind = json.loads(row["metadata"])["kind"]
        place = (app, row["partition"], row["slot"], kind)
        context = context_of(*place, version, row["due"], row["metadata"])
        purpose = MANIFEST if kind == "manifest" else RECORD
        plaintext = unseal(purpose, keys[sealed[4:20]], context, sealed).decode()
        if kind == "manifest":
            check_manifest(json.loads(plaintext), sealed[4:20].hex(), epochs)
        yield row, plaintext


def check_manifest(manifest, primary, epochs):
    listed = {key["id"]: key["epoch"] for key in manifest["keys"]}
    check("manifest", "keys", listed, epochs)
    primaries = [key["id"] for key in manifest["keys"] if key["state"] == "primary"]
    check("manifest", "primary", primaries, [primary])


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
