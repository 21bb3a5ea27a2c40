"""The smallest example, as its README says to run it."""

import re

from tests.support.programs import ROOT, Visitor, serving
from tests.support.servers import free_ports

APP = ROOT / "examples/quickstart/app.py"


def test_it_is_as_short_as_it_says():
    assert len(APP.read_text().splitlines()) <= 60


def test_it_remembers_who_is_who(tmp_path):
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [str(APP.relative_to(ROOT)), "runserver", "--noreload", str(port)]
    with serving(url, tmp_path / "log", *command):
        ada, stranger = Visitor(url), Visitor(url)
        assert ada.status_without_token("hi") == 403
        with ada.say("My name is Ada."):
            pass
        with ada.say("<b>hello</b>") as answered:
            page = answered.read().decode()
        said = re.findall(r"<p><b>(\w+)</b> (.*?)</p>", page)
        assert said == [
            ("user", "My name is Ada."),
            ("assistant", "You said “My name is Ada.”, Ada. Turn 1."),
            ("user", "&lt;b&gt;hello&lt;/b&gt;"),
            ("assistant", "You said “&lt;b&gt;hello&lt;/b&gt;”, Ada. Turn 2."),
        ]
        assert ada.page().count("<p>") == 4
        assert stranger.page().count("<p>") == 0
        with stranger.say("  ") as answered:
            assert answered.read().decode().count("<p>") == 0
        with stranger.say("hi") as answered:
            assert "You said “hi”, stranger. Turn 1." in answered.read().decode()
