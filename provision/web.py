"""HTTP requests to services that aren't clouds."""

from __future__ import annotations

import urllib.request
from typing import Any


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: only the named service may answer, and get what the request holds."""

    def redirect_request(self, *words: Any, **options: Any) -> None:
        """Follow none: the redirect becomes an error."""
        return
