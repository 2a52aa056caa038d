"""Reads a scrape with the reference parser of OpenMetrics, and the alert rules as YAML.

usage: reference_parser.py URL ALERTS
"""

import math
import sys
import urllib.request

import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families


def check(condition: bool, problem: str) -> None:
    if not condition:
        sys.exit(problem)


def main() -> None:
    url, alerts = sys.argv[1:]
    with urllib.request.urlopen(url, timeout=10) as answer:
        kind = answer.headers["Content-Type"]
        text = answer.read().decode()
    check(kind == "application/openmetrics-text; version=1.0.0; charset=utf-8", f"Content-Type: {kind}")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = [sample for family in families.values() for sample in family.samples]
    check(len(families) > 50 and len(samples) > 100, f"{len(families)} families, {len(samples)} samples")
    for family in families.values():
        check(bool(family.documentation), f"{family.name} has no help")
        check(not family.unit or family.name.endswith(f"_{family.unit}"), f"{family.name}: unit {family.unit}")
    for sample in samples:
        check(math.isfinite(sample.value) and sample.value >= 0, f"{sample}")
    received = families["elbus_received_frames"].samples[0].value
    check(received >= 3, f"{received} frames received, though clients have sent some")

    with open(alerts, encoding="utf-8") as file:
        groups = yaml.safe_load(file)["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    for rule in rules:
        missing = {"alert", "expr", "labels", "annotations"} - rule.keys()
        check(not missing, f"{rule}: without {missing}")
    print(f"{len(families)} metrics with {len(samples)} samples, {len(rules)} alert rules")


main()
