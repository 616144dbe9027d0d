"""Stands in for `world4rl challenge`: every refined policy becomes the champion of its task."""

import hashlib
import json
import sys
from pathlib import Path


def main():
    task = sys.argv[-1]
    refined = "".join(path.read_text() for path in sorted(Path("models", task, "refined").glob("*.txt")))
    digest = hashlib.sha256(refined.encode()).hexdigest()
    found = {
        "task": task,
        "verdict": "promoted",
        "why": "it is a toy",
        "challenger": digest,
        "champion": digest,
        "decided": True,
        "evidence": {},
        "record": None,
    }
    target = Path("reports", "promotion", f"{task}.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
