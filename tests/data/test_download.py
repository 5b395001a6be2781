"""One process at a time builds in a folder, and leaves no lock there; a download keeps to https."""

import threading
import time
import urllib.error
from urllib.request import HTTPRedirectHandler, Request

import pytest

from genlab.data.download import _NoDowngrade, exclusive_access


def test_a_lock_excludes_all_others_and_is_removed(tmp_path):
    inside, most = [], []

    def build():
        for _ in range(20):
            with exclusive_access(tmp_path / "new", "name"):
                inside.append(None)
                most.append(len(inside))
                time.sleep(0)  # lets the others try
                inside.pop()

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 80
    assert list((tmp_path / "new").iterdir()) == []


def test_http_is_refused_after_https_unless_a_server_over_http_led_there():
    """The files of Fashion-MNIST come one after the other over http, and its server may send the first to https."""
    handler, asked = _NoDowngrade(), Request("http://a.org/1")
    handler.http_request(asked)
    redirected = HTTPRedirectHandler().redirect_request(asked, None, 302, "", {}, "https://a.org/1")
    handler.https_request(redirected)
    assert handler.http_request(Request("http://a.org/2")).full_url == "http://a.org/2"
    handler.https_request(Request("https://b.org/1"))
    with pytest.raises(urllib.error.URLError, match="http is refused after https"):
        handler.http_request(Request("http://b.org/1"))
