"""Asks Prometheus for each expression of the dashboard, and for the alerts. See scripts/observability."""

import json
import sys
import time
import urllib.parse
import urllib.request

prometheus, app, dashboard, *options = sys.argv[1:]


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


def expect(alerts, seconds):
    """Waits until exactly these alerts fire, and until they still do after a while."""
    expected = set(alerts)
    wait_until(f"expected {expected}", lambda: firing() ^ expected, seconds)
    time.sleep(40)
    others = firing() ^ expected
    if others:
        sys.exit(f"expected {expected} to stay, but changed: {others}")
    print(f"firing: {sorted(expected)}")


wait_until("expressions without data", empty, 180)
print("each expression of the dashboard has data")
expect([], 120)
if "--troubles" in options:
    trouble("secret")
    refreshes = ["SlackRejectsTheApp", "RefreshesFail"]
    wait_until("alerts", lambda: set(refreshes) - firing(), 180)
    print(f"with a revoked secret, these fire: {sorted(firing())}")
    trouble("none")
    expect([], 600)
    # A data key is fetched again from an age of four minutes.
    trouble("keys")
    wait_until("alerts", lambda: {"KeyProviderFails"} - firing(), 480)
    print(f"with a key provider that fails, these fire: {sorted(firing())}")
