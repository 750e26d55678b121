"""What the integration cases are written with: laboratories, processes in them, files, captures and servers."""

from .case import Failed, Skipped, all_cases, case, check, equal  # noqa: F401
from .context import Context, counters_in  # noqa: F401
from .daemons import Apache, Postgres, Sshd, children_of, need_program, need_root, wait_until  # noqa: F401
from .lab import Lab  # noqa: F401
from .process import Process  # noqa: F401
from .servers import Nginx  # noqa: F401
