"""Asks Prometheus for each expression of the dashboard, and for the alerts. See scripts/observability."""

import json
import subprocess
import sys
import time
import urllib.parse
import urllib.request

prometheus, app, dashboard, redis, *options = sys.argv[1:]


def get(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


def query(expression):
    query = urllib.parse.urlencode({"query": expression})
    return get(f"{prometheus}/api/v1/query?{query}")["data"]["result"]


def wait_until(what, holds, seconds):
    deadline = time.monotonic() + seconds
    while True:
        try:
            left = holds()
        except OSError as error:
            left = error
        if not left:
            return
        if time.monotonic() > deadline:
            sys.exit(f"{what}: {left}")
        time.sleep(2)


def empty():
    """Returns the expressions of the dashboard that have no data."""
    with open(dashboard) as file:
        panels = json.load(file)["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(expressions) > 15, "the dashboard has expressions"
    def has_data(expression):
        values = [sample["value"][1] for sample in query(expression)]
        return any(value != "NaN" for value in values)

    return [expression for expression in expressions if not has_data(expression)]


def firing():
    return {it["metric"]["alertname"] for it in query('ALERTS{alertstate="firing"}')}


def trouble(name):
    request = urllib.request.Request(f"{app}/trouble/{name}", method="POST")
    urllib.request.urlopen(request, timeout=10).close()


def redis_cli(*arguments):
    command = ["redis-cli", "-s", redis, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def evict():
    """Switches eviction on, as an operator may do by mistake, and removes about half of the rows."""
    keys = redis_cli("--scan", "--pattern", "*").split()
    sizes = [int(redis_cli("memory", "usage", key) or 0) for key in keys]
    used = dict(line.split(":", 1) for line in redis_cli("info", "memory").splitlines() if ":" in line)
    redis_cli("config", "set", "maxmemory-policy", "allkeys-lru")
    redis_cli("config", "set", "maxmemory", str(int(used["used_memory"]) - sum(sizes) // 2))
    # Nothing else is evicted afterwards, so what is left can still be written.
    time.sleep(5)
    redis_cli("config", "set", "maxmemory", "0")
    print(f"Redis evicted {len(keys) - int(redis_cli('dbsize'))} of {len(keys)} keys")


def expect(alerts, seconds, stay=40):
    """Waits until exactly these alerts fire, and until they still do after a while."""
    expected = set(alerts)
    begun = time.monotonic()
    wait_until(f"expected {sorted(expected)}, but for", lambda: firing() ^ expected, seconds)
    print(f"after {time.monotonic() - begun:.0f} s, exactly these fire: {sorted(expected)}", flush=True)
    for _ in range(stay):
        time.sleep(1)
        others = firing() - expected
        if others:
            sys.exit(f"expected only {sorted(expected)}, but these fire too: {sorted(others)}")


wait_until("expressions without data", empty, 180)
print("each expression of the dashboard has data", flush=True)
expect([], 120)
if "--troubles" in options:
    print("the client secret is revoked", flush=True)
    trouble("secret")
    # The storm's tokens are valid for seconds, and not for 12 hours. So they expire within a minute,
    # and then requests cannot be served.
    consequences = ["TokensHaveExpired", "RequestsCannotBeServed"]
    expect(["SlackRejectsTheApp", "InstallFlowsFail", *consequences], 180)
    print("the client secret works again", flush=True)
    trouble("none")
    expect([], 600)
    print("the key provider fails", flush=True)
    # A data key is fetched again from an age of four minutes.
    trouble("keys")
    expect(["KeyProviderFails"], 480)
    print("the key provider works again", flush=True)
    trouble("none")
    expect([], 600)
    print("Redis evicts rows", flush=True)
    trouble("rows")
    evict()
    expect(["TenantsAreLost"], 180)
