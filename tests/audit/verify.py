"""Verifies an exported audit log. Implements docs/audit.md, and shares no code with the crate.

Uses the Python package `cryptography` for Ed25519.

usage: verify.py APP EXPORT ANCHOR KEY...

EXPORT has one record per line, ANCHOR one signed head per line. A KEY is EPOCH:FROM:UNTIL:HEX, with
times in milliseconds since 1970; UNTIL may be empty. Prints each finding as `RUN RECORD FAULT`, then
the number of records and of runs.
"""

import hashlib
import json
import struct
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

RUN = b"slack-installs audit run v1"
RECORD = b"slack-installs audit record v1"
PAYLOAD = b"slack-installs audit payload v1"
HEAD = b"slack-installs audit head v1"


def message(tag, *fields):
    return tag + b"".join(struct.pack(">I", len(field)) + field for field in fields)


def digest(tag, *fields):
    return hashlib.sha256(message(tag, *fields)).hexdigest()


def number(value):
    return struct.pack(">Q", value)


def hash_of(record):
    texts = {name: record.get(name, "").encode() for name in ("note", "payload")}
    return digest(
        RECORD,
        bytes.fromhex(record["run"]),
        number(record["sequence"]),
        number(record["time"]),
        record["event"].encode(),
        record["outcome"].encode(),
        number(record["count"]),
        texts["note"],
        record["previous"].encode(),
        texts["payload"],
    )


def is_signed(head, keys):
    key = keys.get(head["epoch"])
    if key is None:
        return False
    start, until, public = key
    if not start <= head["time"] < until:
        return False
    signed = message(
        HEAD,
        head["app"].encode(),
        head["run"].encode(),
        number(head["records"]),
        head["hash"].encode(),
        number(head["time"]),
        number(head["epoch"]),
    )
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(bytes.fromhex(head["signature"]), signed)
    except InvalidSignature:
        return False
    return True


def check(app, run, records, keys):
    """Returns the first fault of a run, and the hash after each record."""
    head = digest(RUN, app.encode(), bytes.fromhex(run))
    heads = [head]
    broken = None
    for place, record in enumerate(records):
        is_linked = record["previous"] == head
        if broken is not None:
            repaired = {**records[broken], "previous": heads[broken]}
            is_alone = not is_linked and hash_of(repaired) == record["previous"]
            return (broken if is_alone else broken - 1, "Edited"), heads
        sequence = record["sequence"]
        if sequence != place:
            if is_linked:
                return (place, "Edited"), heads
            if sequence < place:
                return (sequence, "Duplicated"), heads
            later = any(other["sequence"] == place for other in records[place:])
            return (place, "Reordered" if later else "Deleted"), heads
        if not is_linked:
            if place == 0:
                return (0, "Edited"), heads
            broken = place
        elif record["event"] == "head":
            signed = json.loads(record["note"])
            if not is_signed(signed, keys):
                return (place, "Head"), heads
            if (signed["run"], signed["records"], signed["hash"]) != (run, place, head):
                return (place - 1, "Rewritten"), heads
        if "sealed" in record and broken is None:
            if digest(PAYLOAD, record["sealed"].encode()) != record.get("payload", ""):
                return (place, "Edited"), heads
        head = hash_of(record)
        heads.append(head)
    if broken is not None:
        return (broken - 1, "Edited"), heads
    return None, heads


def claims_of(records):
    for record in records:
        if record["event"] == "saw":
            note = json.loads(record["note"])
            yield note["run"], note["records"], note["hash"], False
        elif record["event"] == "end":
            successor = json.loads(record["note"])["successor"]
            if successor:
                yield successor, 1, None, False


def main(app, export, anchor, *keys):
    trusted = {}
    for key in keys:
        epoch, start, until, public = key.split(":")
        until = float(until) if until else float("inf")
        trusted[int(epoch)] = (int(start), until, bytes.fromhex(public))
    with open(export, encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    with open(anchor, encoding="utf-8") as lines:
        heads = [json.loads(line) for line in lines]
    runs = {}
    for record in records:
        runs.setdefault(record["run"], []).append(record)

    found, ends, claims = {}, {}, []
    for run, of_run in runs.items():
        fault, ends[run] = check(app, run, of_run, trusted)
        if fault is None:
            claims.extend(claims_of(of_run))
        else:
            found[run] = fault
    for head in heads:
        if not is_signed(head, trusted):
            found.setdefault(head["run"], (head["records"], "Head"))
        else:
            claims.append((head["run"], head["records"], head["hash"], True))
    for run, count, expected, is_anchor in sorted(claims, key=lambda it: (it[0], it[3], it[1])):
        if run in found:
            continue
        if run not in ends:
            found[run] = (0, "RunDropped")
        elif count >= len(ends[run]):
            found[run] = (len(ends[run]) - 1, "RolledBack" if is_anchor else "Truncated")
        elif expected is not None and ends[run][count] != expected:
            found[run] = (count - 1, "Rewritten")
    intact = [record for run in runs if run not in found for record in runs[run]]
    erased = {json.loads(it["note"])["key"] for it in intact if it["event"] == "erased"}
    for run, of_run in runs.items():
        keyless = [it["sequence"] for it in of_run if it.get("erased", "") not in {"", *erased}]
        if keyless and run not in found:
            found[run] = (keyless[0], "KeyMissing")
    for run, (place, fault) in sorted(found.items()):
        print(run, place, fault)
    print(f"{len(records)} records, {len(runs)} runs")


main(*sys.argv[1:])
