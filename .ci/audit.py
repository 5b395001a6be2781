"""Known vulnerabilities of the pinned dependencies, where their database can be reached: at most once a day.

Exit code 1 where there are some; what cannot be audited, as without a network, is said and passes.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONSTRAINTS = Path("constraints.txt")
STAMP = Path(sys.prefix) / "audited"
ONE_DAY = 24 * 3600
# Identifiers of vulnerabilities that cannot reach us, each with the reason.
ACCEPTED: dict[str, str] = {}


def main() -> int:
    """Audit, unless that was done today for these versions."""
    if STAMP.exists() and STAMP.stat().st_mtime > max(CONSTRAINTS.stat().st_mtime, time.time() - ONE_DAY):
        return 0
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(CONSTRAINTS), "--no-deps", "--disable-pip"]
        command += ["--progress-spinner", "off", "--timeout", "5", "--format", "json", "--output", str(report)]
        command += [word for name in ACCEPTED for word in ("--ignore-vuln", name)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if not report.exists():
            last = (result.stderr.splitlines() or ["no report"])[-1]
            print(f"audit: not done, for the database of vulnerabilities cannot be reached ({last})")
            return 0
        packages = json.loads(report.read_text(encoding="utf-8"))["dependencies"]
    audited = [package for package in packages if "vulns" in package]
    if not audited:
        print("audit: not done, for the database of vulnerabilities that can be reached knows none of the packages")
        return 0
    found = [(package, vulnerability) for package in audited for vulnerability in package["vulns"]]
    for package, vulnerability in found:
        fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
        print(f"audit: {package['name']} {package['version']}: {vulnerability['id']}, fixed in {fixed}")
    print(f"audit: {len(audited)} of {len(packages)} packages looked up, {len(found)} known vulnerabilities")
    if not found:
        STAMP.touch()
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
