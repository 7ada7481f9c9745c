import hashlib
import os
import socket
import threading
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest

from lusbio.cohorts import download
from lusbio.cohorts.download import (
    EMERGENCY_LICENSE,
    LOST_CONNECTIONS,
    fetch,
    find_source,
    how_to_get,
    read_published_table,
    read_registry,
)
from lusbio.errors import CohortError, LusbioError
from lusbio.files import data_folder, file_sha256
from lusbio.videos import VIDEO_SUFFIXES

real_data = pytest.mark.skipif("LUSBIO_DATA" not in os.environ, reason="LUSBIO_DATA is not set")

VIDEOS = ["Cov-Atlas+(44).gif", "Cov Butterfly 2.mp4", "Reg_a.mp4", "Reg_b.avi", "Cov_barred.mov"]
METADATA = pd.DataFrame(
    {
        "Filename": [Path(video).stem for video in VIDEOS],
        "License": ["CC BY 4.0", "CC BY 4.0", "CC BY-NC 4.0", "None", EMERGENCY_LICENSE],
    }
)


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; breaks the connection within files in ``dropped``, counts what is asked."""

    def do_GET(self):
        name = self.translate_path(self.path)
        self.server.asked[Path(name).name] += 1
        if self.server.refuse:
            self.send_error(503)
        elif Path(name).name in self.server.dropped:
            self.send_response(200)
            self.send_header("Content-Length", str(10**6))
            self.end_headers()
            self.wfile.write(b"half of it")
            self.close_connection = True
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def upstream(tmp_path, monkeypatch):
    """A pretended POCOVID repository with its registry, served from this machine."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    source = find_source("pocovid")
    served = tmp_path / "upstream"
    root = served / source.repository / source.commit
    convex = root / "data/pocus_videos/convex"
    convex.mkdir(parents=True)
    METADATA.to_csv(root / "data/dataset_metadata.csv", index=False)
    for video in VIDEOS:
        (convex / video).write_bytes(video.encode() * 100)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(served)))
    server.root, server.asked, server.dropped, server.refuse = root, Counter(), set(), False
    server.url = f"http://127.0.0.1:{server.server_port}"
    files = sorted(path for path in root.rglob("*") if path.is_file())
    server.registry = pd.DataFrame(
        {
            "path": [path.relative_to(root).as_posix() for path in files],
            "bytes": [path.stat().st_size for path in files],
            "sha256": [hashlib.sha256(path.read_bytes()).hexdigest() for path in files],
        }
    )
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def fetch_from(server, folder, *, url="", retries=0, **options):
    told = {"UPSTREAM": url or server.url, "RETRIES": retries, "read_registry": lambda name: server.registry}
    with mock.patch.multiple(download, **told):
        return fetch("pocovid", folder=folder, **options)


def videos_in(folder):
    return {path.name for path in (folder / "pocus_videos/convex").iterdir()}


def test_everything_wanted_arrives_under_its_local_name(upstream, tmp_path):
    report = fetch_from(upstream, tmp_path / "pocovid")
    assert (report.present, report.total, report.fetched) == (4, 5, 5)
    for video in VIDEOS[:4]:
        path = tmp_path / "pocovid/pocus_videos/convex" / video
        assert path.read_bytes() == (upstream.root / "data/pocus_videos/convex" / video).read_bytes()


def test_videos_under_the_emergency_licence_come_only_when_asked_for(upstream, tmp_path):
    report = fetch_from(upstream, tmp_path)
    assert report.left_out == ("pocus_videos/convex/Cov_barred.mov",)
    assert upstream.asked["Cov_barred.mov"] == 0
    report = fetch_from(upstream, tmp_path, include_emergency_license=True)
    assert (report.present, report.fetched, report.left_out) == (5, 1, ())


def test_without_the_table_of_licences_no_video_is_fetched(upstream, tmp_path):
    (upstream.root / "data/dataset_metadata.csv").unlink()
    with pytest.raises(LusbioError, match="as the table with its licence is not here"):
        fetch_from(upstream, tmp_path)
    assert set(upstream.asked) == {"dataset_metadata.csv"}


def test_files_that_are_there_are_kept_and_wrong_ones_fetched_again(upstream, tmp_path):
    fetch_from(upstream, tmp_path)
    convex = tmp_path / "pocus_videos/convex"
    (convex / "Reg_a.mp4").write_bytes(b"truncated")
    (convex / "Reg_b.avi").unlink()
    kept = (convex / "Cov-Atlas+(44).gif").stat().st_mtime_ns
    upstream.asked.clear()
    report = fetch_from(upstream, tmp_path)
    assert report.fetched == 2 and report.present == 4
    assert set(upstream.asked) == {"Reg_a.mp4", "Reg_b.avi"}
    assert (convex / "Cov-Atlas+(44).gif").stat().st_mtime_ns == kept


def test_a_complete_cohort_needs_no_server(upstream, tmp_path):
    fetch_from(upstream, tmp_path)
    upstream.asked.clear()
    assert fetch_from(upstream, tmp_path, url="http://127.0.0.1:9").fetched == 0
    assert not upstream.asked


def test_a_corrupted_file_never_lands_and_does_not_stop_the_others(upstream, tmp_path):
    (upstream.root / "data/pocus_videos/convex/Cov Butterfly 2.mp4").write_bytes(b"<html>not a video</html>")
    (upstream.root / "data/pocus_videos/convex/Reg_a.mp4").unlink()
    with pytest.raises(LusbioError) as raised:
        fetch_from(upstream, tmp_path)
    message = str(raised.value)
    assert "pocovid: 2 of 5 videos present" in message and "2 files could not be fetched" in message
    assert "Cov Butterfly 2.mp4: arrived with a wrong sha256" in message
    assert "Reg_a.mp4: the server answered 404" in message
    assert videos_in(tmp_path) == {"Cov-Atlas+(44).gif", "Reg_b.avi"}  # nor any temporary file


def test_a_file_whose_connection_breaks_is_tried_again_and_reported(upstream, tmp_path):
    upstream.dropped = {"Reg_a.mp4"}
    with pytest.raises(LusbioError, match=r"Reg_a\.mp4: no connection, or one that broke"):
        fetch_from(upstream, tmp_path, retries=1)
    assert upstream.asked["Reg_a.mp4"] == 2
    assert videos_in(tmp_path) == set(VIDEOS[:2]) | {"Reg_b.avi"}
    upstream.dropped = set()
    assert fetch_from(upstream, tmp_path).fetched == 1


def test_a_server_that_refuses_is_asked_for_a_few_files_only(upstream, tmp_path):
    fetch_from(upstream, tmp_path, include_emergency_license=True)
    for path in (tmp_path / "pocus_videos/convex").iterdir():
        path.unlink()
    upstream.asked.clear()
    upstream.refuse = True
    with pytest.raises(LusbioError) as raised:
        fetch_from(upstream, tmp_path, include_emergency_license=True)
    assert sum(upstream.asked.values()) == LOST_CONNECTIONS
    assert "the server answered 503" in str(raised.value) and "not tried any more" in str(raised.value)


def test_without_a_network_one_message_says_what_is_here_and_what_is_not(upstream, tmp_path):
    fetch_from(upstream, tmp_path, include_emergency_license=True)
    for name in VIDEOS[:4]:
        (tmp_path / "pocus_videos/convex" / name).unlink()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(LusbioError) as raised:
        fetch_from(upstream, tmp_path, url=nowhere)
    lines = str(raised.value).splitlines()
    assert lines[0].startswith("pocovid: 1 of 5 videos present")
    assert "4 files could not be fetched" in lines[1] and nowhere in lines[1]
    assert sum("no connection" in line and "not tried" not in line for line in lines) == LOST_CONNECTIONS
    assert "not tried any more" in lines[-2] and "1 files: " in lines[-2]
    assert "can be used as it is" in lines[-1]


def test_a_printed_report_names_licence_and_citation(upstream, tmp_path):
    text = str(fetch_from(upstream, tmp_path))
    assert "4 of 5 videos present" in text and "1 under the 'COVID-19 emergency license' are left out" in text
    assert "licence: per video" in text and "10.3390/app11020672" in text


@pytest.mark.parametrize("name", ["covid_blues", "pocovid", "covidx_us"])
def test_every_source_has_a_pinned_commit_and_a_sound_registry(name):
    source, registry = find_source(name), read_registry(name)
    assert len(source.commit) == 40 and source.licence and source.citation
    assert registry["sha256"].str.fullmatch("[0-9a-f]{64}").all() and registry["path"].is_unique
    assert (registry["bytes"] > 0).all()
    assert name == "covid_blues" or registry["path"].str.startswith(source.prefix).all()


def test_an_unknown_source_is_named_with_the_known_ones():
    with pytest.raises(LusbioError, match="'covidblues'; there are covid_blues, pocovid, covidx_us"):
        fetch("covidblues")


def test_a_missing_table_says_how_to_get_it(tmp_path):
    with pytest.raises(CohortError, match="lusbio fetch pocovid") as raised:
        read_published_table(tmp_path, "a.csv", "pocovid", [])
    assert how_to_get("pocovid") in str(raised.value)
    (tmp_path / "a.csv").write_text("x,y\n1 ,\n")
    assert read_published_table(tmp_path, "a.csv", "pocovid", ["x"]).to_dict("list") == {"x": ["1"], "y": [""]}
    with pytest.raises(CohortError, match="column 'z' is missing"):
        read_published_table(tmp_path, "a.csv", "pocovid", ["x", "z"])


@real_data
def test_the_published_files_on_this_machine_are_the_published_ones():
    for name, total in (("covid_blues", 362), ("pocovid", 131), ("covidx_us", 1)):
        files = read_registry(name)
        places = data_folder() / name / files["path"].str.removeprefix(find_source(name).prefix)
        videos = [place for place in places if place.suffix.lower() in VIDEO_SUFFIXES]
        assert len(videos or places) == total
        for place, sha256 in zip(places, files["sha256"], strict=True):
            assert not place.is_file() or file_sha256(place) == sha256, place


# --- the model of a release ---


def test_a_model_is_fetched_from_wherever_a_variable_says(tmp_path, monkeypatch):
    made, released = tmp_path / "made", tmp_path / "release" / "model"
    made.mkdir()
    released.mkdir(parents=True)
    for name, content in (("card.json", "{}"), ("weights.safetensors", "0123")):
        (made / name).write_text(content)
        (released / name).write_text(content)
    (tmp_path / "registry").mkdir()
    sources = (download.REGISTRY_FOLDER / "sources.csv").read_text()
    (tmp_path / "registry" / "sources.csv").write_text(sources)
    monkeypatch.setattr(download, "REGISTRY_FOLDER", tmp_path / "registry")
    monkeypatch.delenv("LUSBIO_MODEL_URL", raising=False)
    monkeypatch.setenv("LUSBIO_DATA", str(tmp_path / "data"))
    with pytest.raises(LusbioError, match="released without a model"):
        read_registry("model")
    download.write_registry(made, "model")
    with pytest.raises(LusbioError, match="LUSBIO_MODEL_URL is not set"):
        fetch("model")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "release")))
    server.asked, server.dropped, server.refuse = Counter(), set(), False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("LUSBIO_MODEL_URL", f"http://127.0.0.1:{server.server_port}")
    assert "model: 2 of 2 files present" in str(fetch("model"))
    assert (tmp_path / "data" / "model" / "weights.safetensors").read_text() == "0123"
    (released / "card.json").write_text("another")
    (tmp_path / "data" / "model" / "card.json").unlink()
    with pytest.raises(LusbioError, match="wrong sha256"):
        fetch("model")
    server.shutdown()
    server.server_close()
