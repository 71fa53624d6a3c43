"""Start-up time in seconds: `repro --help`, and `repro report` on fifty runs.

python benchmarks/startup.py
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from timing import HEAD, Row, seconds

PUBLISHED = Path(__file__).parent.parent / "outputs" / "reference" / "runs"


def _fifty_runs(out: Path) -> None:
    """Write fifty copies of the published run, each with its own seed."""
    (source,) = (path for path in PUBLISHED.iterdir() if (path / "run.json").exists() and "alexnet" in path.name)
    for seed in range(50):
        copy = out / f"{source.name.rsplit('-', 1)[0]}-seed{seed}"
        shutil.copytree(source, copy)
        for path in (copy / "run.json", *copy.glob("evaluation-*.json")):
            record = json.loads(path.read_text(encoding="utf-8"))
            record |= {"seed": seed} if "seed" in record else {"seeds": [seed], "runs": [copy.name]}
            path.write_text(json.dumps(record), encoding="utf-8")


def _command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "repro", *words], check=True, capture_output=True)


if __name__ == "__main__":
    print(HEAD.replace("ratio", "seconds"))
    interpreter = seconds(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True), 9)
    print(Row("repro --help", f"Python alone: {interpreter:.2f} s", seconds(lambda: _command("--help"), 9), "≤ 0.3"))
    with tempfile.TemporaryDirectory() as folder:
        runs, page = Path(folder) / "runs", Path(folder) / "report"
        _fifty_runs(runs)
        taken = seconds(lambda: _command("report", "--runs", str(runs), "--out", str(page)), 3, 1)
    print(Row("repro report on fifty runs", "–", taken, "≤ 5"))
