"""The completion script of the command, by the command that the wheel installs."""

import subprocess
import sys
from pathlib import Path

command = str(Path(sys.executable).with_name("flashsale"))
script = subprocess.run([command, "--print-completion", "bash"], check=True, capture_output=True, text=True).stdout
assert "restock" in script
