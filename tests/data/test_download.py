"""One process at a time builds in a folder, and leaves no lock there."""

import threading
import time

from genlab.data.download import exclusive_access


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
