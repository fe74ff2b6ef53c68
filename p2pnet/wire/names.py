"""Names of realms, nodes and services: the one pattern that certificates and messages share."""

import re

MAX_NAME = 63  # characters, as many as a label of a host name may have (RFC 1035 section 2.3.4)
NAME_PATTERN = re.compile(rf"[a-z0-9](?:[a-z0-9._-]{{0,{MAX_NAME - 2}}}[a-z0-9])?")
"""A name must match it as a whole, and then fits one URI segment and a file name."""
