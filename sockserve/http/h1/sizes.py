"""
The sizes that a head has at most, where nobody says otherwise.

This room owns these numbers.  It must not know where they are met.
"""

from __future__ import annotations

__all__ = ["MAX_HEADER_BYTES", "MAX_HEADER_FIELDS", "MAX_LINE_BYTES"]

#: The longest request line.  Longer: 414.  64 KiB: C{http.server}'s C{_MAXLINE}.
MAX_LINE_BYTES = 65536

#: The longest header section, and the longest trailer section.  Longer: 431.  64 KiB: h11's
#: and gunicorn's order of magnitude.
MAX_HEADER_BYTES = 65536

#: The most header fields.  More: 431.  100: C{http.client._MAXHEADERS}.
MAX_HEADER_FIELDS = 100
