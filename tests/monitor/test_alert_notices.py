"""What is told of alerts, to a real receiver on the loopback, and what is kept of it over a restart."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from books_rows import energy, meter, usage
from click.testing import CliRunner, Result
from daemon_snapshots import healthy
from webhook_receiver import Receiver, receiving

from monitor.alerts.kept import Kept, KeptAlert, KeptRule, Told, UnreadableAlerts, load_kept, save_kept
from monitor.alerts.notices import REPEAT_SECONDS, body, due, fingerprint
from monitor.alerts.state import AlertState
from monitor.alerts.webhook import NotDelivered, post
from monitor.cli.main import cli
from monitor.config.output_sections import Alert
from monitor.config.sections import Config
from monitor.metrics_text import render as render_metrics
from monitor.reports.daemon_text import faults, render
from monitor.roles.alerting import Alerting, external_url
from monitor.roles.embedded import ALERTS_FILE
from monitor.store.sqlite import SqliteStore

NOON = 1_700_049_600.0  # 2023-11-15T12:00:00Z


class Hand:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.time = NOON

    def now(self) -> float:
        return self.time


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def url_file(tmp_path: Path, receiver: Receiver) -> Path:
    path = tmp_path / "webhook-url"
    path.write_text(f"{receiver.url}/hooks/secret-1?token=secret-2\n")
    return path


def _rule(url_file: Path, **named: Any) -> Alert:
    facts: dict[str, Any] = {"name": "hot", "measure": "power_watts", "above": 90.0, "over_seconds": 10.0}
    return Alert(**facts | {"per": ("host",), "webhook_url_file": url_file} | named)


def _firing(told: Told | None = None, resolved_at: float | None = None, fired_at: float = NOON) -> KeptAlert:
    state = AlertState(at=NOON, value=312.5, active_since=NOON - 60, fired_at=fired_at, resolved_at=resolved_at)
    return KeptAlert(instance=("gpu-01",), state=state, told=told)


def test_the_body_is_alertmanagers() -> None:
    """Version 4, with what a receiver made for Alertmanager reads."""
    rule = _rule(Path("url"))
    told = json.loads(body(rule, due([_firing()], NOON), external_url="http://127.0.0.1:8095"))
    labels = {"alertname": "hot", "measure": "power_watts", "host": "gpu-01"}
    annotations = {"summary": "power_watts of host gpu-01 is 312.5, above 90", "value": "312.5"}
    assert told == {
        "version": "4",
        "groupKey": '{}:{alertname="hot"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "wattribute",
        "groupLabels": {"alertname": "hot"},
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "http://127.0.0.1:8095",
        "alerts": [
            {
                "status": "firing",
                "labels": labels,
                "annotations": annotations,
                "startsAt": "2023-11-15T12:00:00.000Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://127.0.0.1:8095/v1/allocation"
                "?window=2023-11-15T11:00:00Z,2023-11-15T12:00:00Z&aggregate=host",
                "fingerprint": fingerprint(labels),
            }
        ],
    }


def test_a_fingerprint_is_fnv_of_the_labels() -> None:
    """The offset basis for no labels, whatever their order, and another for other values."""
    assert fingerprint({}) == "cbf29ce484222325"
    assert fingerprint({"a": "1", "b": "2"}) == fingerprint({"b": "2", "a": "1"})
    assert len({fingerprint({"a": "bc"}), fingerprint({"ab": "c"}), fingerprint({"a": "b"})}) == 3


@pytest.mark.parametrize(
    ("alert", "now", "statuses"),
    [
        (KeptAlert(instance=(), state=AlertState(at=NOON, value=1.0)), NOON, []),
        (_firing(), NOON, ["firing"]),
        (_firing(Told(fired_at=NOON, resolved_at=None, sent_at=NOON)), NOON + REPEAT_SECONDS - 1, []),
        (_firing(Told(fired_at=NOON, resolved_at=None, sent_at=NOON)), NOON + REPEAT_SECONDS, ["firing"]),
        (_firing(Told(fired_at=NOON, resolved_at=None, sent_at=NOON), resolved_at=NOON + 9), NOON, ["resolved"]),
        (_firing(None, resolved_at=NOON + 9), NOON, ["resolved"]),  # came and went while nobody could be told
        (_firing(Told(fired_at=NOON, resolved_at=NOON + 9, sent_at=NOON), resolved_at=NOON + 9), NOON + 1e6, []),
        (_firing(Told(fired_at=NOON - 99, resolved_at=None, sent_at=NOON)), NOON, ["firing"]),  # another firing
    ],
)
def test_what_is_due_is_what_the_receiver_does_not_know(alert: KeptAlert, now: float, statuses: list[str]) -> None:
    """Firing once and every four hours, resolved once."""
    assert [notice.status for notice in due([alert], now)] == statuses


def test_a_post_goes_to_the_url_in_the_file(receiver: Receiver, url_file: Path) -> None:
    """Path and query, as JSON; a user in it becomes basic authorisation; a changed file counts at once."""
    post(url_file, b"{}")
    assert receiver.paths == ["/hooks/secret-1?token=secret-2"]
    assert receiver.sent_headers[0]["Content-Type"] == "application/json"
    url_file.write_text(receiver.url.replace("http://", "http://ann:p%40ss@"))
    post(url_file, b"{}")
    assert receiver.paths[1:] == ["/"]
    assert receiver.sent_headers[1]["Authorization"] == "Basic YW5uOnBAc3M="


@pytest.mark.parametrize(
    ("status", "said"),
    [(500, "answers 500"), (404, "answers 404"), (302, "a redirect; write the address that it leads to")],
)
def test_an_answer_that_is_not_2xx_is_told_without_the_secret(
    receiver: Receiver, url_file: Path, status: int, said: str
) -> None:
    """A redirect is not followed."""
    receiver.answers, receiver.headers = [status], {"Location": f"{receiver.url}/elsewhere"}
    with pytest.raises(NotDelivered) as caught:
        post(url_file, b"{}")
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(receiver.paths) == 1


@pytest.mark.parametrize(
    "text", ["", "ftp://host/x", "http://", "http://h:port/", "http://h/a b", "http://a/\nhttp://b/"]
)
def test_what_is_no_url_is_not_posted_to(url_file: Path, text: str) -> None:
    """The file is named, what is in it is not shown."""
    url_file.write_text(text)
    with pytest.raises(NotDelivered, match="holds no http or https URL, or more than one"):
        post(url_file, b"{}")


def test_nobody_there_no_file_and_no_answer_are_told(receiver: Receiver, url_file: Path, tmp_path: Path) -> None:
    """Each says what happened; a receiver that is silent is not waited for."""
    receiver.hold.clear()
    with pytest.raises(NotDelivered, match="no whole answer within"):
        post(url_file, b"{}", timeout_seconds=0.2)
    with pytest.raises(NotDelivered, match="cannot be read"):
        post(tmp_path / "none", b"{}")
    url_file.write_text("http://127.0.0.1:1/secret")
    with pytest.raises(NotDelivered, match="Connection refused") as caught:
        post(url_file, b"{}")
    assert "secret" not in str(caught.value)


def test_what_is_kept_reads_back_and_what_is_broken_is_told(tmp_path: Path) -> None:
    """A file of another version, or half a file, is not guessed at."""
    told = Told(fired_at=NOON, resolved_at=None, sent_at=NOON)
    rule = KeptRule(name="hot", measure="power_watts", per=("host",), alerts=(_firing(told),))
    kept = Kept(judged_until=NOON, rules=(rule,))
    save_kept(tmp_path / "alerts.json", kept)
    assert load_kept(tmp_path / "alerts.json") == kept
    assert load_kept(tmp_path / "none") == Kept()
    for text in ("{", json.dumps({"version": 2})):
        (tmp_path / "alerts.json").write_text(text)
        with pytest.raises(UnreadableAlerts, match="alerts"):
            load_kept(tmp_path / "alerts.json")


def test_a_rule_that_measures_something_else_begins_anew(url_file: Path) -> None:
    """Another threshold goes on with what is known."""
    kept = Kept(rules=(KeptRule(name="hot", measure="power_watts", per=("host",), alerts=(_firing(),)),))
    assert set(kept.alerts_of(_rule(url_file, above=1.0))) == {("gpu-01",)}
    assert kept.alerts_of(_rule(url_file, measure="idle_ratio")) == {}
    assert kept.alerts_of(_rule(url_file, per=("team",))) == {}


class House:
    """The alerts on a store that the test fills; they are judged and told when the test says so."""

    def __init__(self, folder: Path, rule: Alert) -> None:
        self.clock, self._folder, self._rule = Hand(), folder, rule
        self.leads = True
        self.store = SqliteStore(folder / "store.db")
        self.alerting = self._made()

    def _made(self) -> Alerting:
        return Alerting(
            self.store,
            Config(alerts=(self._rule,)),
            folder=self._folder,
            host="h0",
            clock=self.clock,
            is_leader=lambda: self.leads,
        )

    def restart(self) -> None:
        """The process ends and another begins."""
        self.alerting.close()
        self.alerting = self._made()

    def window(self, offset: float, watts: float) -> None:
        """A window, judged a minute after it closed."""
        time = NOON + offset
        joules = watts * 10
        self.store.write([meter(time, joules), energy(time, joules, model="m", team="a"), usage(time, 1.0, model="m")])
        self.store.write([meter(time + 60, 0.0, host="late", covered_seconds=0.0)])
        self.clock.time = time + 70
        self.alerting.judge()
        self.alerting.tell()


@pytest.fixture
def house(tmp_path: Path, url_file: Path) -> Iterator[House]:
    made = House(tmp_path, _rule(url_file))
    yield made
    made.store.close()


def test_an_alert_is_told_when_it_fires_and_when_it_is_over(house: House, receiver: Receiver) -> None:
    """Once each, however often it is judged in between."""
    for number, watts in enumerate((50.0, 100.0, 100.0, 50.0, 50.0)):
        house.window(number * 10, watts)
    assert receiver.told() == [("firing", "h1"), ("resolved", "h1")]
    first, second = (each["alerts"][0] for each in receiver.bodies)
    assert (first["startsAt"], second["startsAt"]) == ("2023-11-15T12:00:20.000Z",) * 2
    assert second["endsAt"] == "2023-11-15T12:00:40.000Z"
    assert first["fingerprint"] == second["fingerprint"]


def test_a_restart_sends_nothing_anew(house: House, receiver: Receiver) -> None:
    """What was firing goes on firing, and is told as over when it is."""
    house.window(0, 100.0)
    house.restart()
    house.window(10, 100.0)
    assert receiver.told() == [("firing", "h1")]
    house.restart()
    house.window(20, 50.0)
    assert receiver.told() == [("firing", "h1"), ("resolved", "h1")]


def test_a_receiver_that_fails_is_tried_again_later_and_holds_up_no_judging(house: House, receiver: Receiver) -> None:
    """The failure is shown and counted; the next try waits; what resolved meanwhile is told as resolved."""
    receiver.answers = [503]
    house.window(0, 100.0)
    [shown] = house.alerting.snapshots()
    assert (shown.sent, shown.failed, shown.count("firing")) == (0, 1, 1)
    assert shown.detail == f"could not be told (1): {receiver.url}: answers 503"
    house.window(10, 50.0)
    [shown] = house.alerting.snapshots()
    assert (shown.failed, shown.count("resolved"), receiver.told()) == (1, 1, [])
    house.restart()  # the wait is not kept: a new process tries at once
    house.alerting.tell()
    assert receiver.told() == [("resolved", "h1")]
    assert house.alerting.snapshots()[0].detail == ""


def test_judging_goes_on_while_a_receiver_does_not_answer(house: House, receiver: Receiver) -> None:
    """The post hangs in its own thread; the alert that it is about is resolved meanwhile, and told next."""
    house.leads = False
    house.window(0, 100.0)
    house.leads = True
    house.alerting.judge()
    receiver.hold.clear()
    telling = threading.Thread(target=house.alerting.tell)
    telling.start()
    house.store.write([meter(NOON + 10, 10.0), meter(NOON + 70, 0.0, host="late", covered_seconds=0.0)])
    house.clock.time = NOON + 80
    house.alerting.judge()
    [shown] = house.alerting.snapshots()
    assert shown.count("resolved") == 1
    receiver.hold.set()
    telling.join()
    house.alerting.tell()
    assert receiver.told() == [("firing", "h1"), ("resolved", "h1")]


def test_who_does_not_lead_neither_judges_nor_tells(house: House, receiver: Receiver) -> None:
    """In a fleet one of the control roles does."""
    house.leads = False
    house.window(0, 100.0)
    assert (receiver.bodies, house.alerting.snapshots()[0].judged_until) == ([], None)


def test_a_broken_file_begins_anew(house: House, receiver: Receiver, tmp_path: Path) -> None:
    """It fires again, as new: that is better than nothing."""
    house.window(0, 100.0)
    (tmp_path / ALERTS_FILE).write_text("not json")
    house.restart()
    house.window(10, 100.0)
    assert receiver.told() == [("firing", "h1")] * 2


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:8095", "http://127.0.0.1:8095"),
        ("0.0.0.0:80", "http://h0:80"),
        ("[::]:80", "http://h0:80"),
        ("[::1]:80", "http://[::1]:80"),
    ],
)
def test_links_lead_to_where_the_api_listens(listen: str, url: str) -> None:
    """By the host's name where that is everywhere."""
    assert external_url(listen, "h0") == url


def test_states_told_while_judging_are_not_lost() -> None:
    """Who judges began with what was known before the post; what was told meanwhile stays."""
    told = Told(fired_at=NOON, resolved_at=None, sent_at=NOON)
    rule = KeptRule(name="hot", measure="power_watts", per=("host",), alerts=(_firing(),))
    found, now = Kept(rules=(rule,)), Kept(rules=(msgspec.structs.replace(rule, alerts=(_firing(told),)),))
    assert found.with_all_told(now) == now


def _config_file(folder: Path, url_file: Path) -> Path:
    path = folder / "config.toml"
    path.write_text(
        f'[data]\ndirectory = "{folder}"\n[[alerts]]\nname = "hot"\nmeasure = "power_watts"\nabove = 90\nover = "10s"\n'
        f'per = ["host"]\nwebhook_url_file = "{url_file}"\n'
    )
    return path


def _called(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["alerts", *map(str, words)])


def test_the_command_lists_rules_with_state_value_and_since(house: House, tmp_path: Path, url_file: Path) -> None:
    """One line for each host; before anything was judged, one that says so."""
    config = _config_file(tmp_path, url_file)
    assert "nothing was judged yet" in _called("list", "--config", config).stdout
    house.window(0, 100.0)
    done = _called("list", "--config", config)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[2:] == [
        "hot   h1     firing    100  90 power_watts  2023-11-15T12:00:10.000Z",
        "",
        "judged until 2023-11-15T12:00:10.000Z",
    ]
    [told] = json.loads(_called("list", "--config", config, "--json").stdout)
    assert (told["instances"][0]["phase"], told["instances"][0]["value"]) == ("firing", 100.0)
    (tmp_path / ALERTS_FILE).write_text("{")
    assert _called("list", "--config", config).exit_code == 3


def test_the_command_sends_a_test_message(tmp_path: Path, receiver: Receiver, url_file: Path) -> None:
    """It cannot be taken for a real one; a refusal is told, and a rule that is not there."""
    config = _config_file(tmp_path, url_file)
    assert _called("test", "hot", "--config", config).exit_code == 0
    [alert] = receiver.bodies[0]["alerts"]
    assert (alert["status"], alert["labels"]["test"]) == ("resolved", "true")
    receiver.answers = [403]
    refused = _called("test", "hot", "--config", config)
    assert (refused.exit_code, "answers 403" in refused.output) == (1, True)
    assert "there are: hot" in _called("test", "cold", "--config", config).output


def test_status_and_metrics_tell_of_alerts(house: House, receiver: Receiver) -> None:
    """How many fire, how many posts went wrong, and that somebody has to look at the receiver."""
    receiver.answers = [500]
    house.window(0, 100.0)
    snapshot = msgspec.structs.replace(healthy(), alerts=house.alerting.snapshots())
    assert faults(snapshot) == [f"alert hot: could not be told (1): {receiver.url}: answers 500"]
    assert ["hot", "1", "0", "0", "0"] in [line.split() for line in render(snapshot).splitlines()]
    told = render_metrics(snapshot).decode()
    assert 'wattribute_alerts_firing{alert="hot"} 1.0' in told
    assert 'wattribute_alert_posts_total{alert="hot",outcome="failed"} 1.0' in told
