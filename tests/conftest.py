"""What holds in all tests."""

import os

# Plans under a budget shall not depend on how busy the machine is (docs/environment.md).
os.environ.setdefault("MB_COSTS", "roofline")
