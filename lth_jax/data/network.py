"""Whether a download can work, found out in seconds: TFDS retries for minutes."""

from __future__ import annotations

import http.client
import threading
import urllib.error
import urllib.parse
import urllib.request

_TIMEOUT_SECONDS = 3.0


def problem_with(url: str, timeout: float = _TIMEOUT_SECONDS) -> str:
    """Why `url` cannot be downloaded now, or an empty string. Proxies of the environment are used.

    Returns after `timeout` seconds at the latest.
    """
    host = urllib.parse.urlsplit(url).hostname
    answer = [f"{host} does not answer within {timeout:g} s"]

    # In a thread of its own: no timeout covers the look-up of the host's name.
    thread = threading.Thread(target=lambda: answer.append(_ask(url, timeout)), daemon=True)
    thread.start()
    thread.join(timeout)
    return answer[-1]


def _ask(url: str, timeout: float) -> str:
    host = urllib.parse.urlsplit(url).hostname
    try:
        request = urllib.request.Request(url, method="HEAD")
        # An opener of its own: the shared one keeps the proxies of its first use.
        with urllib.request.build_opener().open(request, timeout=timeout):
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return f"{host} answers {error.code} {error.reason}"
    except (OSError, http.client.HTTPException) as error:
        return f"{host} cannot be reached: {getattr(error, 'reason', error)}"
