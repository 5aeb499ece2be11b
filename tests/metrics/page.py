"""Reads a page in Prometheus' text format, and fetches one from a server."""

import re
import urllib.request

SAMPLE = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def fetch(endpoint, path="/metrics"):
    with urllib.request.urlopen(f"http://{endpoint}{path}", timeout=20) as answer:
        return answer.read().decode()


class Family:
    def __init__(self, kind):
        self.kind = kind
        self.labels = set()   # names, without le
        self.bounds = set()   # of a histogram's buckets
        self.samples = {}     # (suffix, labels as a sorted tuple) -> value


def parse(text):
    """name -> Family"""
    families, name = {}, None
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in families, f"{name} stands twice on the page"
            families[name] = Family(kind)
        elif line and not line.startswith("#"):
            match = SAMPLE.match(line)
            assert match, f"not a sample: {line}"
            full, labels, value = match.groups()
            assert name and full.startswith(name), f"{full} stands under {name}"
            pairs = dict(LABEL.findall(labels or ""))
            family = families[name]
            if "le" in pairs:
                family.bounds.add(float(pairs["le"]))
            family.labels.update(set(pairs) - {"le"})
            family.samples[full[len(name):], tuple(sorted(pairs.items()))] = float(value)
    return families
