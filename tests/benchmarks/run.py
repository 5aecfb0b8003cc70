"""Run every benchmark of this folder, one after the other: `make bench`. `--quick` is handed on.

Each prints one JSON document; peers that are not installed are skipped by the benchmark with a word.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    failed = []
    for script in sorted(Path(__file__).parent.glob("bench_*.py")):
        sys.stdout.write(f"\n== {script.stem}\n")
        sys.stdout.flush()
        if subprocess.run([sys.executable, script, *sys.argv[1:]], check=False).returncode:
            failed.append(script.stem)
    if failed:
        sys.stderr.write(f"failed: {', '.join(failed)}\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
