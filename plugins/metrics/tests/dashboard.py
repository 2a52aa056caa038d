"""Reads the dashboard with the models of Grafana's own SDK: nothing may be lost or unknown."""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

# Grafana writes it, and its models do not have it
UNKNOWN = {"definition"}


def compare(original, read, path):
    """Yields what the models have not understood."""
    if isinstance(original, dict) and isinstance(read, dict):
        for key, value in original.items():
            if key in read:
                yield from compare(value, read[key], f"{path}.{key}")
            elif key not in UNKNOWN:
                yield f"{path}.{key} is unknown"
    elif isinstance(original, list) and isinstance(read, list) and len(original) == len(read):
        for index, (one, other) in enumerate(zip(original, read)):
            yield from compare(one, other, f"{path}[{index}]")
    elif original != read:
        yield f"{path} is {original!r}, read as {read!r}"


with open(sys.argv[1], encoding="utf-8") as file:
    dashboard = json.load(file)
errors = list(compare(dashboard, json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder)), "$"))
if errors:
    sys.exit("\n".join(errors))
print(f"dashboard: {len(dashboard['panels'])} panels, as Grafana's models have them")
