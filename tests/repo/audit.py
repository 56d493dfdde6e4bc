"""`make check`: known vulnerabilities of what is installed, by pip-audit; without a network it says so, and passes."""

import json
import subprocess
import sys
from pathlib import Path

OPTIONS = ("--skip-editable", "--progress-spinner", "off", "--timeout", "5", "--format", "json")


def report(found: str) -> tuple[int, list[str]]:
    """Exit status and lines to print of what pip-audit wrote; nothing, where it could not reach anybody."""
    known = [package for package in json.loads(found or '{"dependencies": []}')["dependencies"] if "vulns" in package]
    if not known:
        return 0, ["Vulnerabilities: not checked, the advisories cannot be reached"]
    vulnerable = [package for package in known if package["vulns"]]
    lines = [
        f"{package['name']} {package['version']}: {one['id']}, mended in {', '.join(one['fix_versions']) or 'none'}"
        for package in vulnerable
        for one in package["vulns"]
    ]
    return int(bool(vulnerable)), [
        *lines,
        f"Vulnerabilities: {len(known)} packages checked, {len(vulnerable)} have some",
    ]


if __name__ == "__main__":
    run = subprocess.run(
        [str(Path(sys.executable).parent / "pip-audit"), *OPTIONS], capture_output=True, text=True, check=False
    )
    status, lines = report(run.stdout)
    sys.stdout.write("\n".join(lines) + "\n")
    sys.exit(status)
